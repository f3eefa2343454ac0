package pontoon;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static pontoon.Bytes.numbered;
import static pontoon.Bytes.of;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.tikv.common.TiConfiguration;
import org.tikv.common.TiSession;
import org.tikv.common.exception.RawCASConflictException;
import org.tikv.kvproto.Kvrpcpb.KvPair;
import org.tikv.raw.RawKVClient;
import org.tikv.shade.com.google.protobuf.ByteString;

/** What the client's documentation shows of raw keys, and its edges. */
class RawTest {
  /** What a test does with a client. */
  private interface Calls {
    void run(RawKVClient client, Server server) throws Exception;
  }

  private static void with(String api, Calls calls) throws Exception {
    try (Server server = new Server(api);
        TiSession session = TiSession.create(configuration(server, api))) {
      RawKVClient client = session.createRawClient();
      calls.run(client, server);
      client.close();
    }
  }

  private static TiConfiguration configuration(Server server, String api) {
    TiConfiguration configuration = TiConfiguration.createRawDefault(server.address());
    configuration.setEnableAtomicForCAS(true);
    if (api.equals("2")) {
      configuration.setApiVersion(TiConfiguration.ApiVersion.V2);
    }
    return configuration;
  }

  @ParameterizedTest
  @ValueSource(strings = {"1", "1ttl", "2"})
  void putGetDelete(String api) throws Exception {
    with(api, (client, server) -> {
      assertEquals(Optional.empty(), client.get(of("k")));
      client.put(of("k"), of("v"));
      assertEquals(Optional.of(of("v")), client.get(of("k")));
      client.put(of("k"), of("other"));
      assertEquals(Optional.of(of("other")), client.get(of("k")));
      client.delete(of("k"));
      client.delete(of("k"));
      assertEquals(Optional.empty(), client.get(of("k")));
    });
  }

  @ParameterizedTest
  @ValueSource(strings = {"1", "1ttl", "2"})
  void batchesAndScans(String api) throws Exception {
    with(api, (client, server) -> {
      client.batchPut(Map.of(of("a"), of("1"), of("b"), of("2"), of("c"), of("3"), of("d"), of("4")));
      List<KvPair> found = client.batchGet(Bytes.list("c", "none", "a"));
      assertEquals(2, found.size());
      assertEquals("b=2 c=3", Bytes.text(client.scan(of("b"), of("d"))));
      assertEquals("a=1 b=2 c=3", Bytes.text(client.scan(of("a"), 3)));
      assertEquals("b= c= d=", Bytes.text(client.scan(of("b"), 3, true)));
      assertEquals("c=3", Bytes.text(client.scanPrefix(of("c"))));
      client.batchDelete(Bytes.list("a", "none"));
      client.deleteRange(of("b"), of("d"));
      assertEquals("d=4", Bytes.text(client.scan(of("a"), of("z"))));
    });
  }

  @ParameterizedTest
  @ValueSource(strings = {"1", "1ttl", "2"})
  void compareAndSet(String api) throws Exception {
    with(api, (client, server) -> {
      assertEquals(Optional.empty(), client.putIfAbsent(of("k"), of("1")));
      assertEquals(Optional.of(of("1")), client.putIfAbsent(of("k"), of("2")));
      client.compareAndSet(of("k"), Optional.of(of("1")), of("3"));
      assertThrows(
          RawCASConflictException.class,
          () -> client.compareAndSet(of("k"), Optional.of(of("1")), of("4")));
      assertEquals(Optional.of(of("3")), client.get(of("k")));
    });
  }

  @ParameterizedTest
  @ValueSource(strings = {"1ttl", "2"})
  void timeToLive(String api) throws Exception {
    with(api, (client, server) -> {
      client.put(of("long"), of("v"), 1000);
      long left = client.getKeyTTL(of("long")).orElseThrow();
      assertTrue(left >= 900 && left <= 1000, left + " s");
      client.put(of("short"), of("v"), 1);
      while (client.get(of("short")).isPresent()) {
        Thread.onSpinWait();
      }
      assertFalse(client.getKeyTTL(of("short")).isPresent());
    });
  }

  @ParameterizedTest
  @ValueSource(strings = {"1", "2"})
  void manyKeys(String api) throws Exception {
    with(api, (client, server) -> {
      int count = 20_000;
      Map<ByteString, ByteString> part = new HashMap<>();
      for (int number = 0; number < count; number++) {
        part.put(numbered(number), numbered(number));
        if (part.size() == 2_000) {
          client.batchPut(part);
          part.clear();
        }
      }
      List<KvPair> found = client.scan(numbered(0), numbered(count));
      assertEquals(count, found.size());
      for (int number = 0; number < count; number++) {
        assertEquals(numbered(number), found.get(number).getKey());
      }
      client.deletePrefix(of("key-"));
      assertEquals(List.of(), client.scan(numbered(0), numbered(count)));
    });
  }

  @ParameterizedTest
  @ValueSource(strings = {"1", "2"})
  void largeEmptyAndBinary(String api) throws Exception {
    with(api, (client, server) -> {
      ByteString large = ByteString.copyFrom(new byte[1 << 20]);
      for (int number = 0; number < 3; number++) {
        client.put(numbered(number), large);
      }
      assertEquals(Optional.of(large), client.get(numbered(2)));
      for (int b = 0; b < 256; b++) {
        ByteString key = ByteString.copyFrom(new byte[] {(byte) b, 0, (byte) 0xff, (byte) b});
        client.put(key, key);
        assertEquals(Optional.of(key), client.get(key));
      }
    });
  }

  @Test
  void manyCallersAtOnce() throws Exception {
    with("1", (client, server) -> {
      ExecutorService callers = Executors.newFixedThreadPool(16);
      List<Future<?>> all = new ArrayList<>();
      for (int caller = 0; caller < 16; caller++) {
        String name = caller + "/";
        all.add(callers.submit(() -> {
          for (int i = 0; i < 100; i++) {
            client.put(of(name + i), of(name + i));
            assertEquals(Optional.of(of(name + i)), client.get(of(name + i)));
          }
        }));
      }
      for (Future<?> caller : all) {
        caller.get();
      }
      callers.shutdown();
    });
  }

  @Test
  void theClientOutlivesTheServer() throws Exception {
    with("1", (client, server) -> {
      for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 100; i++) {
          client.put(of(round + "/" + i), of("v" + i));
        }
        server.kill();
        server.launch();
        for (int i = 0; i < 100; i++) {
          assertEquals(Optional.of(of("v" + i)), client.get(of(round + "/" + i)));
        }
      }
    });
  }
}
