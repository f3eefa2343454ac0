package pontoon;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static pontoon.Bytes.numbered;
import static pontoon.Bytes.of;

import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.tikv.common.BytePairWrapper;
import org.tikv.common.ByteWrapper;
import org.tikv.common.TiConfiguration;
import org.tikv.common.TiSession;
import org.tikv.common.util.BackOffer;
import org.tikv.common.util.ConcreteBackOffer;
import org.tikv.kvproto.Kvrpcpb.KvPair;
import org.tikv.shade.com.google.protobuf.ByteString;
import org.tikv.txn.KVClient;
import org.tikv.txn.TwoPhaseCommitter;

/** The client's two-phase commit, step by step, and its reads. It knows no pessimistic locks. */
class TransactionTest {
  private static final int BACK_OFF_MS = 20_000;

  /** Longer than a client that is gone may hold up another: its locks live an hour here. */
  private static final long LOCK_MS = 3_600_000;

  private interface Calls {
    void run(TiSession session, KVClient client, Server server) throws Exception;
  }

  private static void with(Calls calls) throws Exception {
    try (Server server = new Server("1");
        TiSession session = TiSession.create(TiConfiguration.createDefault(server.address()));
        KVClient client = session.createKVClient()) {
      calls.run(session, client, server);
    }
  }

  private static BackOffer backOff() {
    return ConcreteBackOffer.newCustomBackOff(BACK_OFF_MS);
  }

  private static long now(TiSession session) {
    return session.getTimestamp().getVersion();
  }

  private static byte[] key(int number) {
    return numbered(number).toByteArray();
  }

  private static List<BytePairWrapper> secondaries(int count, String value) {
    List<BytePairWrapper> pairs = new ArrayList<>();
    for (int number = 1; number < count; number++) {
      pairs.add(new BytePairWrapper(key(number), value.getBytes()));
    }
    return pairs;
  }

  private static List<ByteWrapper> keys(int count) {
    List<ByteWrapper> keys = new ArrayList<>();
    for (int number = 1; number < count; number++) {
      keys.add(new ByteWrapper(key(number)));
    }
    return keys;
  }

  /** Writes keys from number 0, which is the primary. Returns the timestamp of the commit. */
  private static long write(TiSession session, int count, String value) throws Exception {
    try (TwoPhaseCommitter committer = new TwoPhaseCommitter(session, now(session), LOCK_MS)) {
      committer.prewritePrimaryKey(backOff(), key(0), value.getBytes());
      committer.prewriteSecondaryKeys(key(0), secondaries(count, value).iterator(), BACK_OFF_MS);
      long commit = now(session);
      committer.commitPrimaryKey(backOff(), key(0), commit);
      committer.commitSecondaryKeys(keys(count).iterator(), commit, BACK_OFF_MS);
      return commit;
    }
  }

  private static void expectAll(TiSession session, KVClient client, int count, String value) {
    long version = now(session);
    List<KvPair> found = client.scan(numbered(0), numbered(count), version);
    assertEquals(count, found.size());
    for (int number = 0; number < count; number++) {
      assertEquals(numbered(number), found.get(number).getKey());
      assertEquals(value, found.get(number).getValue().toStringUtf8());
    }
  }

  @Test
  void aCommitIsSeenFromItsTimestampOn() throws Exception {
    with((session, client, server) -> {
      long first = write(session, 5, "old");
      long second = write(session, 5, "new");
      assertEquals("old", client.get(numbered(3), second - 1).toStringUtf8());
      assertEquals("new", client.get(numbered(3), second).toStringUtf8());
      assertTrue(client.get(numbered(3), first - 1).isEmpty());
      // The client sorts the list that it is given.
      List<ByteString> asked = new ArrayList<>(List.of(numbered(0), numbered(4), of("none")));
      assertEquals(2, client.batchGet(backOff(), asked, now(session)).size());
      expectAll(session, client, 5, "new");
      assertEquals(2, client.scan(numbered(1), now(session), 2).size());
    });
  }

  @Test
  void aLargeTransactionOverManyRegions() throws Exception {
    with((session, client, server) -> {
      int count = 3_000;
      List<byte[]> borders = new ArrayList<>();
      for (int number = 500; number < count; number += 500) {
        borders.add(key(number));
      }
      session.splitRegionAndScatter(borders);
      write(session, count, "x".repeat(300));
      expectAll(session, client, count, "x".repeat(300));
      Iterator<KvPair> found = session.createSnapshot().scan(numbered(0));
      int seen = 0;
      for (; found.hasNext() && seen < count; seen++) {
        assertEquals(numbered(seen), found.next().getKey());
      }
      assertEquals(count, seen);
    });
  }

  @Test
  void ofTwoWritersTheSecondConflicts() throws Exception {
    with((session, client, server) -> {
      long start = now(session);
      write(session, 1, "first");
      try (TwoPhaseCommitter late = new TwoPhaseCommitter(session, start, LOCK_MS)) {
        BackOffer backOff = ConcreteBackOffer.newCustomBackOff(1_000);
        assertThrows(
            Exception.class, () -> late.prewritePrimaryKey(backOff, key(0), "late".getBytes()));
      }
      expectAll(session, client, 1, "first");
    });
  }

  /** It is gone after the commit of its primary: the rest is committed by who comes by. */
  @Test
  void secondariesOfWhoIsGoneAreCommitted() throws Exception {
    with((session, client, server) -> {
      write(session, 20, "old");
      try (TwoPhaseCommitter gone = new TwoPhaseCommitter(session, now(session), LOCK_MS)) {
        gone.prewritePrimaryKey(backOff(), key(0), "new".getBytes());
        gone.prewriteSecondaryKeys(key(0), secondaries(20, "new").iterator(), BACK_OFF_MS);
        gone.commitPrimaryKey(backOff(), key(0), now(session));
      }
      expectAll(session, client, 20, "new");
    });
  }

  /** It is gone before: once its locks have expired it was never there. */
  @Test
  void locksOfWhoIsGoneExpire() throws Exception {
    with((session, client, server) -> {
      write(session, 20, "old");
      try (TwoPhaseCommitter gone = new TwoPhaseCommitter(session, now(session), 500)) {
        gone.prewritePrimaryKey(backOff(), key(0), "new".getBytes());
        gone.prewriteSecondaryKeys(key(0), secondaries(20, "new").iterator(), BACK_OFF_MS);
        expectAll(session, client, 20, "old");
        assertThrows(Exception.class, () -> gone.commitPrimaryKey(backOff(), key(0), now(session)));
      }
      expectAll(session, client, 20, "old");
    });
  }

  @Test
  void timestampsGrow() throws Exception {
    with((session, client, server) -> {
      long last = 0;
      for (int i = 0; i < 500; i++) {
        long next = now(session);
        assertTrue(next > last, next + " after " + last);
        last = next;
      }
    });
  }
}
