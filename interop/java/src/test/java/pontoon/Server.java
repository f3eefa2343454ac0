package pontoon;

import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/** A running binary on a folder of its own. It keeps its folder and its address over a kill. */
final class Server implements AutoCloseable {
  /** Far more than a start takes: a server that is slow to start is not what fails here. */
  private static final long START_TIMEOUT_S = 60;

  private final String apiVersion;
  private final Path folder;
  private Process process;
  private String address = "127.0.0.1:0";

  Server(String apiVersion) throws Exception {
    this.apiVersion = apiVersion;
    this.folder = Files.createTempDirectory("pontoon-interop-");
    launch();
  }

  String address() {
    return address;
  }

  /** Returns once the server has said that it can serve. */
  void launch() throws Exception {
    String binary = System.getenv("PONTOON");
    if (binary == null) {
      throw new IllegalStateException("PONTOON names no binary: run ./x interop java");
    }
    List<String> command = new ArrayList<>(List.of(binary));
    String nodes = System.getenv("PONTOON_NODES");
    if (nodes == null) {
      command.addAll(List.of("start", "--listen", address));
    } else {
      // It remembers its ports in its folder.
      command.addAll(List.of("dev", "--listen", "127.0.0.1:0", "--nodes", nodes));
    }
    String config = System.getenv("PONTOON_CONFIG");
    if (config != null) {
      command.addAll(List.of("--config", config));
    }
    command.addAll(List.of("--data-dir", folder.resolve("data").toString()));
    command.addAll(List.of("--api-version", apiVersion));
    File log = folder.resolve("log").toFile();
    process =
        new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.appendTo(log)).start();
    BufferedReader out = new BufferedReader(new InputStreamReader(process.getInputStream()));
    String line =
        CompletableFuture.supplyAsync(() -> readLine(out)).get(START_TIMEOUT_S, TimeUnit.SECONDS);
    if (line == null || !line.startsWith("ready ")) {
      throw new IllegalStateException("not ready but " + line + "; its log:\n" + log());
    }
    for (String field : line.split(" ")) {
      if (field.startsWith("listen=")) {
        // Of several nodes the first is spoken to.
        address = field.substring("listen=".length()).split(",")[0];
      }
    }
  }

  private static String readLine(BufferedReader from) {
    try {
      return from.readLine();
    } catch (IOException error) {
      return error.toString();
    }
  }

  private String log() throws IOException {
    return Files.readString(folder.resolve("log"));
  }

  /** Ends it without a word, as a crash would. Several nodes end in order. */
  void kill() throws InterruptedException {
    if (System.getenv("PONTOON_NODES") == null) {
      process.destroyForcibly();
    } else {
      process.destroy();
    }
    process.waitFor();
  }

  @Override
  public void close() throws Exception {
    kill();
    try (Stream<Path> all = Files.walk(folder)) {
      all.sorted(Comparator.reverseOrder()).map(Path::toFile).forEach(File::delete);
    }
  }
}
