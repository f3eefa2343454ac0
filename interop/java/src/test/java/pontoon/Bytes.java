package pontoon;

import java.util.ArrayList;
import java.util.List;
import org.tikv.kvproto.Kvrpcpb.KvPair;
import org.tikv.shade.com.google.protobuf.ByteString;

/** Words as the client's bytes, and back. */
final class Bytes {
  private Bytes() {}

  static ByteString of(String text) {
    return ByteString.copyFromUtf8(text);
  }

  static ByteString numbered(int number) {
    return of(String.format("key-%08d", number));
  }

  static List<ByteString> list(String... texts) {
    List<ByteString> list = new ArrayList<>();
    for (String text : texts) {
      list.add(of(text));
    }
    return list;
  }

  /** Pairs as one text, in their order: {@code a=1 b=2}. */
  static String text(List<KvPair> pairs) {
    StringBuilder text = new StringBuilder();
    for (KvPair pair : pairs) {
      text.append(text.length() == 0 ? "" : " ").append(pair.getKey().toStringUtf8());
      text.append('=').append(pair.getValue().toStringUtf8());
    }
    return text.toString();
  }
}
