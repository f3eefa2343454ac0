package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	tikverr "github.com/tikv/client-go/v2/error"
	"github.com/tikv/client-go/v2/kv"
	"github.com/tikv/client-go/v2/txnkv"
	"github.com/tikv/client-go/v2/txnkv/transaction"
	"github.com/tikv/client-go/v2/txnkv/txnsnapshot"
	"github.com/tikv/client-go/v2/txnkv/txnutil"
)

func TestTxnCommits(t *testing.T) {
	inEveryTxnMode(t, func(t *testing.T, ctx context.Context, c *txnkv.Client) {
		round := 0
		for name, set := range ways() {
			round++
			a, b := fmt.Sprintf("%d/a", round), fmt.Sprintf("%d/b", round)
			txn := begin(t, c)
			set(txn)
			if txn.IsPessimistic() {
				must(t, txn.LockKeysWithWaitTime(ctx, kv.LockAlwaysWait, []byte(a), []byte(b)))
			}
			must(t, txn.Set([]byte(a), []byte("1")))
			must(t, txn.Set([]byte(b), []byte("2")))
			expectIn(t, ctx, txn, a, "1")
			expectIn(t, ctx, now(t, c), b, "")
			before := txn.StartTS()
			if err := txn.Commit(ctx); err != nil {
				t.Fatalf("%s: %+v", name, err)
			}
			expectIn(t, ctx, now(t, c), a, "1")
			expectIn(t, ctx, latest(c), b, "2")
			expectIn(t, ctx, c.GetSnapshot(before), a, "")
			write(t, ctx, c, a, "3")
			expectIn(t, ctx, latest(c), a, "3")
		}
		untilNoLocks(t, ctx, c)
	})
}

func TestTxnReadsAndRollback(t *testing.T) {
	inEveryTxnMode(t, func(t *testing.T, ctx context.Context, c *txnkv.Client) {
		write(t, ctx, c, "k1", "v1", "k2", "v2", "k3", "v3")
		txn := begin(t, c)
		must(t, txn.Set([]byte("k2"), []byte("mine")))
		must(t, txn.Delete([]byte("k3")))
		values, err := batchGet(ctx, txn, words("k1", "k2", "k3", "none"))
		must(t, err)
		if len(values) != 2 || string(values["k1"]) != "v1" || string(values["k2"]) != "mine" {
			t.Fatalf("%q", values)
		}
		keys, _ := drainTxn(t, txn, "k", "l")
		expectWords(t, keys, "k1", "k2")
		must(t, txn.Rollback())
		if txn.Valid() || txn.Commit(ctx) == nil {
			t.Fatal("a transaction goes on after its end")
		}
		values, err = batchGet(ctx, latest(c), words("k1", "k2", "k3", "none"))
		must(t, err)
		if len(values) != 3 || string(values["k2"]) != "v2" {
			t.Fatalf("%q", values)
		}
		must(t, begin(t, c).Commit(ctx))
	})
}

func drainTxn(t *testing.T, txn *transaction.KVTxn, start, end string) (keys, values [][]byte) {
	t.Helper()
	from, err := txn.Iter([]byte(start), []byte(end))
	return drain(t, from, err, 1_000_000)
}

func TestTxnScansOverRegionBorders(t *testing.T) {
	inEveryTxnMode(t, func(t *testing.T, ctx context.Context, c *txnkv.Client) {
		const count = 1_000
		writeNumbered(t, ctx, c, count)
		between := append(numbered(600), '~')
		splitAt(t, ctx, c, numbered(100), numbered(101), numbered(350), between, numbered(900))
		for _, batch := range []int{17, 256, 10_240} {
			for _, keyOnly := range []bool{false, true} {
				s := now(t, c)
				s.SetScanBatchSize(batch)
				s.SetKeyOnly(keyOnly)
				from, err := s.Iter(nil, nil)
				keys, values := drain(t, from, err, 2*count)
				expectNumbered(t, keys, 0, count)
				if len(values[5]) != 0 == keyOnly {
					t.Fatalf("value %q", values[5])
				}
				from, err = s.Iter(numbered(95), numbered(605))
				keys, _ = drain(t, from, err, 2*count)
				expectNumbered(t, keys, 95, 605)
				from, err = snapshotReverse(s, numbered(901))
				keys, _ = drain(t, from, err, 2*count)
				reverse(keys)
				expectNumbered(t, keys, 0, 901)
			}
		}
		if reversesFromTheEnd {
			from, err := snapshotReverse(latest(c), nil)
			keys, _ := drain(t, from, err, 10)
			reverse(keys)
			expectNumbered(t, keys, count-10, count)
		}
		values, err := batchGet(ctx, latest(c), numberedTo(count+5))
		must(t, err)
		if len(values) != count {
			t.Fatalf("%d values", len(values))
		}
		s := now(t, c)
		s.SetSampleStep(10)
		from, err := s.Iter(numbered(400), numbered(600))
		keys, _ := drain(t, from, err, count)
		if len(keys) != 20 || !bytes.Equal(keys[1], numbered(410)) {
			t.Fatalf("%d samples", len(keys))
		}
	})
}

func expectNumbered(t *testing.T, keys [][]byte, first, end int) {
	t.Helper()
	if len(keys) != end-first {
		t.Fatalf("%d keys of %d", len(keys), end-first)
	}
	for i, key := range keys {
		if !bytes.Equal(key, numbered(first+i)) {
			t.Fatalf("%q where %q should be", key, numbered(first+i))
		}
	}
}

func reverse(keys [][]byte) {
	for i, j := 0, len(keys)-1; i < j; i, j = i+1, j-1 {
		keys[i], keys[j] = keys[j], keys[i]
	}
}

func TestTxnScansSeeOwnWrites(t *testing.T) {
	inEveryTxnMode(t, func(t *testing.T, ctx context.Context, c *txnkv.Client) {
		write(t, ctx, c, "a", "1", "b", "2", "c", "3", "d", "4")
		txn := begin(t, c)
		must(t, txn.Set([]byte("bb"), []byte("mine")))
		must(t, txn.Delete([]byte("c")))
		keys, values := drainTxn(t, txn, "b", "z")
		expectWords(t, keys, "b", "bb", "d")
		expectWords(t, values, "2", "mine", "4")
		from, err := bufferReverse(txn, []byte("d"))
		keys, _ = drain(t, from, err, 10)
		expectWords(t, keys, "bb", "b", "a")
		must(t, txn.Commit(ctx))
	})
}

func TestTxnConflicts(t *testing.T) {
	inEveryTxnMode(t, func(t *testing.T, ctx context.Context, c *txnkv.Client) {
		for name, set := range ways() {
			first, second := begin(t, c), begin(t, c)
			set(second)
			second.SetPessimistic(false)
			must(t, first.Set([]byte("k"), []byte(name)))
			must(t, second.Set([]byte("k"), []byte("second")))
			must(t, second.Set([]byte("other"), []byte("second")))
			must(t, first.Commit(ctx))
			err := second.Commit(ctx)
			if !isConflict(err) {
				t.Fatalf("%s: %+v", name, err)
			}
			var conflict *tikverr.ErrWriteConflict
			if errors.As(err, &conflict) && conflict.GetReason() != kvrpcpb.WriteConflict_Optimistic {
				t.Fatalf("%s: %v", name, conflict)
			}
			expectIn(t, ctx, latest(c), "k", name)
			expectIn(t, ctx, latest(c), "other", "")
		}
		untilNoLocks(t, ctx, c)
	})
}

func TestTxnInsertsAndAssertions(t *testing.T) {
	inEveryTxnMode(t, func(t *testing.T, ctx context.Context, c *txnkv.Client) {
		write(t, ctx, c, "there", "1")
		txn := begin(t, c)
		must(t, txn.GetMemBuffer().SetWithFlags([]byte("there"), []byte("2"), kv.SetPresumeKeyNotExists))
		if err := txn.Commit(ctx); !tikverr.IsErrKeyExist(err) {
			t.Fatalf("insert: %+v", err)
		}
		txn = begin(t, c)
		must(t, txn.GetMemBuffer().SetWithFlags([]byte("new"), []byte("2"), kv.SetPresumeKeyNotExists))
		must(t, txn.Commit(ctx))
		for _, wrong := range []struct {
			key  string
			flag kv.FlagsOp
		}{{"there", kv.SetAssertNotExist}, {"none", kv.SetAssertExist}} {
			txn = begin(t, c)
			txn.SetAssertionLevel(kvrpcpb.AssertionLevel_Strict)
			must(t, txn.GetMemBuffer().SetWithFlags([]byte(wrong.key), []byte("3"), wrong.flag))
			var failed *tikverr.ErrAssertionFailed
			if err := txn.Commit(ctx); !errors.As(err, &failed) {
				t.Fatalf("%s: %+v", wrong.key, err)
			}
		}
		for _, right := range []struct {
			key  string
			flag kv.FlagsOp
		}{{"there", kv.SetAssertExist}, {"none", kv.SetAssertNotExist}} {
			txn = begin(t, c)
			txn.SetAssertionLevel(kvrpcpb.AssertionLevel_Strict)
			must(t, txn.GetMemBuffer().SetWithFlags([]byte(right.key), []byte("3"), right.flag))
			must(t, txn.Commit(ctx))
		}
		expectIn(t, ctx, latest(c), "there", "3")
		expectIn(t, ctx, latest(c), "none", "3")
		untilNoLocks(t, ctx, c)
	})
}

func pessimistic(t *testing.T, c *txnkv.Client) *transaction.KVTxn {
	t.Helper()
	txn := begin(t, c)
	txn.SetPessimistic(true)
	return txn
}

func TestTxnLocks(t *testing.T) {
	inEveryTxnMode(t, func(t *testing.T, ctx context.Context, c *txnkv.Client) {
		write(t, ctx, c, "a", "1", "b", "2")
		holder, other := pessimistic(t, c), pessimistic(t, c)
		must(t, holder.LockKeysWithWaitTime(ctx, kv.LockAlwaysWait, words("a", "b", "none")...))
		if count := len(scanLocks(t, ctx, c)); count != 3 {
			t.Fatalf("%d locks", count)
		}
		err := other.LockKeysWithWaitTime(ctx, kv.LockNoWait, []byte("a"))
		if !errors.Is(err, tikverr.ErrLockAcquireFailAndNoWaitSet) {
			t.Fatalf("no wait: %+v", err)
		}
		began := time.Now()
		err = other.LockKeysWithWaitTime(ctx, 500, []byte("b"))
		if !errors.Is(err, tikverr.ErrLockWaitTimeout) || time.Since(began) < 400*time.Millisecond {
			t.Fatalf("after %s: %+v", time.Since(began), err)
		}
		expectIn(t, ctx, latest(c), "a", "1")
		must(t, holder.Set([]byte("a"), []byte("held")))
		waited := make(chan error, 1)
		go func() { waited <- waitAndWrite(ctx, other, "a") }()
		must(t, holder.Commit(ctx))
		must(t, <-waited)
		expectIn(t, ctx, latest(c), "a", "waited")
		untilNoLocks(t, ctx, c)
	})
}

func waitAndWrite(ctx context.Context, txn *transaction.KVTxn, key string) error {
	for {
		err := txn.LockKeysWithWaitTime(ctx, kv.LockAlwaysWait, []byte(key))
		if isConflict(err) {
			continue // With a new for-update timestamp.
		}
		if err != nil {
			return err
		}
		if err := txn.Set([]byte(key), []byte("waited")); err != nil {
			return err
		}
		return txn.Commit(ctx)
	}
}

func TestTxnLocksReturnValues(t *testing.T) {
	inEveryTxnMode(t, func(t *testing.T, ctx context.Context, c *txnkv.Client) {
		write(t, ctx, c, "a", "1", "b", "2")
		txn := pessimistic(t, c)
		write(t, ctx, c, "a", "newer")
		locks := kv.NewLockCtx(timestamp(t, c), kv.LockAlwaysWait, time.Now())
		locks.InitReturnValues(3)
		must(t, txn.LockKeys(ctx, locks, words("a", "b", "none")...))
		for key, want := range map[string]string{"a": "newer", "b": "2", "none": ""} {
			if value := locks.Values[key]; string(value.Value) != want || value.Exists != (want != "") {
				t.Fatalf("%s: %+v", key, value)
			}
		}
		must(t, txn.Rollback())
		txn = pessimistic(t, c)
		locks = kv.NewLockCtx(timestamp(t, c), kv.LockAlwaysWait, time.Now())
		locks.InitCheckExistence(2)
		must(t, txn.LockKeys(ctx, locks, words("b", "none")...))
		if !locks.Values["b"].Exists || locks.Values["none"].Exists {
			t.Fatalf("%+v", locks.Values)
		}
		must(t, txn.Rollback())
		txn = pessimistic(t, c)
		locks = kv.NewLockCtx(timestamp(t, c), kv.LockAlwaysWait, time.Now())
		locks.InitReturnValues(1)
		must(t, txn.LockKeys(ctx, locks, []byte("a")))
		locks = kv.NewLockCtx(timestamp(t, c), kv.LockAlwaysWait, time.Now())
		locks.InitReturnValues(1)
		locks.LockOnlyIfExists = true
		must(t, txn.LockKeys(ctx, locks, []byte("none")))
		if found := scanLocks(t, ctx, c); len(found) != 1 || locks.Values["none"].Exists {
			t.Fatalf("%v, %+v", found, locks.Values)
		}
		must(t, txn.Rollback())
		// Pessimistic locks are given up in the background.
		untilNoLocks(t, ctx, c)
	})
}

func TestTxnAggressiveLocking(t *testing.T) {
	inEveryTxnMode(t, func(t *testing.T, ctx context.Context, c *txnkv.Client) {
		write(t, ctx, c, "k", "1")
		txn := pessimistic(t, c)
		txn.StartAggressiveLocking()
		old := timestamp(t, c)
		write(t, ctx, c, "k", "newer")
		locks := kv.NewLockCtx(old, kv.LockAlwaysWait, time.Now())
		locks.InitReturnValues(1)
		// It is locked although it has changed, and that is told.
		must(t, txn.LockKeys(ctx, locks, []byte("k")))
		value := locks.Values["k"]
		if value.LockedWithConflictTS <= old || string(value.Value) != "newer" {
			t.Fatalf("%+v", value)
		}
		txn.RetryAggressiveLocking(ctx)
		locks = kv.NewLockCtx(timestamp(t, c), kv.LockAlwaysWait, time.Now())
		locks.InitReturnValues(1)
		must(t, txn.LockKeys(ctx, locks, []byte("k")))
		txn.DoneAggressiveLocking(ctx)
		must(t, txn.Set([]byte("k"), []byte("mine")))
		must(t, txn.Commit(ctx))
		expectIn(t, ctx, latest(c), "k", "mine")
		untilNoLocks(t, ctx, c)
	})
}

func TestTxnDeadlock(t *testing.T) {
	inEveryTxnMode(t, func(t *testing.T, ctx context.Context, c *txnkv.Client) {
		first, second := pessimistic(t, c), pessimistic(t, c)
		must(t, first.LockKeysWithWaitTime(ctx, kv.LockAlwaysWait, []byte("a")))
		must(t, second.LockKeysWithWaitTime(ctx, kv.LockAlwaysWait, []byte("b")))
		results := make(chan error, 2)
		finish := func(txn *transaction.KVTxn, key string) {
			err := txn.LockKeysWithWaitTime(ctx, kv.LockAlwaysWait, []byte(key))
			for isConflict(err) {
				err = txn.LockKeysWithWaitTime(ctx, kv.LockAlwaysWait, []byte(key))
			}
			if err != nil {
				_ = txn.Rollback()
			} else {
				err = txn.Commit(ctx)
			}
			results <- err
		}
		go finish(first, "b")
		go finish(second, "a")
		one, two := <-results, <-results
		if one == nil {
			one, two = two, one
		}
		must(t, two)
		var deadlock *tikverr.ErrDeadlock
		if !errors.As(one, &deadlock) {
			t.Fatalf("%+v", one)
		}
		if deadlock.GetDeadlockKeyHash() == 0 || len(deadlock.GetWaitChain()) == 0 {
			t.Fatalf("%v", deadlock.Deadlock)
		}
		untilNoLocks(t, ctx, c)
	})
}

func TestTxnIsolationLevelsAndPriorities(t *testing.T) {
	inEveryTxnMode(t, func(t *testing.T, ctx context.Context, c *txnkv.Client) {
		write(t, ctx, c, "k", "1")
		before := timestamp(t, c)
		write(t, ctx, c, "k", "2")
		for _, priority := range []txnutil.Priority{txnutil.PriorityLow, txnutil.PriorityNormal, txnutil.PriorityHigh} {
			s := c.GetSnapshot(before)
			s.SetPriority(priority)
			s.SetNotFillCache(true)
			s.SetTaskID(7)
			expectIn(t, ctx, s, "k", "1")
		}
		// With keyspaces this client asks again and again: it looks in vain for the primary of such a conflict, and a
		// read has none.
		if !strings.HasSuffix(t.Name(), "api-version-2") {
			s := c.GetSnapshot(before)
			s.SetIsolationLevel(txnsnapshot.RCCheckTS)
			if _, err := get(ctx, s, []byte("k")); !isConflict(err) {
				t.Fatalf("a newer version: %+v", err)
			}
		}
		s := now(t, c)
		s.SetIsolationLevel(txnsnapshot.RC)
		expectIn(t, ctx, s, "k", "2")
	})
}

func TestTxnReadsOfReplicas(t *testing.T) {
	inEveryTxnMode(t, func(t *testing.T, ctx context.Context, c *txnkv.Client) {
		writeNumbered(t, ctx, c, 200)
		splitAt(t, ctx, c, numbered(100))
		for _, kind := range []kv.ReplicaReadType{kv.ReplicaReadFollower, kv.ReplicaReadMixed, kv.ReplicaReadPreferLeader} {
			s := now(t, c)
			s.SetReplicaRead(kind)
			values, err := batchGet(ctx, s, numberedTo(200))
			must(t, err)
			if len(values) != 200 {
				t.Fatalf("%d values", len(values))
			}
			from, err := s.Iter(nil, nil)
			keys, _ := drain(t, from, err, 1_000)
			expectNumbered(t, keys, 0, 200)
		}
		// A read of the past asks nobody: it waits here until the past has become old enough.
		past := timestamp(t, c)
		write(t, ctx, c, "key-00000007", "changed")
		for {
			s := c.GetSnapshot(past)
			s.SetIsStalenessReadOnly(true)
			value, err := get(ctx, s, numbered(7))
			must(t, err)
			if !bytes.Equal(value, numbered(7)) {
				t.Fatalf("%q", value)
			}
			if c.GetMinSafeTS("global") >= past {
				break
			}
		}
	})
}

func TestTxnIsStoppedByItsCaller(t *testing.T) {
	s := start(t, "1")
	ctx, c := testContext(t), s.openTxn()
	holder := pessimistic(t, c)
	must(t, holder.LockKeysWithWaitTime(ctx, kv.LockAlwaysWait, []byte("k")))
	killed := uint32(0)
	other := pessimistic(t, c)
	variables := kv.NewVariables(&killed)
	variables.BackOffWeight = 1
	other.SetVars(variables)
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := other.LockKeysWithWaitTime(short, kv.LockAlwaysWait, []byte("k")); err == nil {
		t.Fatal("two hold one lock")
	}
	must(t, other.Rollback())
	must(t, holder.Rollback())
	untilNoLocks(t, ctx, c)
}

func TestTxnDeleteRange(t *testing.T) {
	inEveryTxnMode(t, func(t *testing.T, ctx context.Context, c *txnkv.Client) {
		writeNumbered(t, ctx, c, 1_000)
		splitAt(t, ctx, c, numbered(300), numbered(500))
		regions, err := c.DeleteRange(ctx, numbered(200), numbered(600), 2)
		must(t, err)
		if regions < 3 {
			t.Fatalf("%d regions", regions)
		}
		from, err := now(t, c).Iter(nil, nil)
		keys, _ := drain(t, from, err, 2_000)
		expectNumbered(t, keys[:200], 0, 200)
		expectNumbered(t, keys[200:], 600, 1_000)
		must(t, c.UnsafeDestroyRange(ctx, numbered(100), numbered(900)))
		from, err = now(t, c).Iter(nil, nil)
		keys, _ = drain(t, from, err, 2_000)
		expectNumbered(t, keys[:100], 0, 100)
		expectNumbered(t, keys[100:], 900, 1_000)
	})
}

func TestTxnSplitAndScatter(t *testing.T) {
	inEveryTxnMode(t, func(t *testing.T, ctx context.Context, c *txnkv.Client) {
		writeNumbered(t, ctx, c, 300)
		regions, err := c.SplitRegions(ctx, [][]byte{numbered(100), numbered(200)}, true, nil)
		must(t, err)
		if len(regions) != 2 {
			t.Fatalf("regions %v", regions)
		}
		for _, region := range regions {
			must(t, c.WaitScatterRegionFinish(ctx, region, 0))
		}
		from, err := now(t, c).Iter(nil, nil)
		keys, _ := drain(t, from, err, 1_000)
		expectNumbered(t, keys, 0, 300)
	})
}

func TestTxnLarge(t *testing.T) {
	inEveryTxnMode(t, func(t *testing.T, ctx context.Context, c *txnkv.Client) {
		const count = 10_000
		splitAt(t, ctx, c, numbered(2_500), numbered(5_000), numbered(7_500))
		for round, set := range []func(*transaction.KVTxn){
			way(false, false, false, false), way(false, true, true, false), way(true, false, false, false),
		} {
			value := bytes.Repeat([]byte{byte('0' + round)}, 512)
			txn := begin(t, c)
			set(txn)
			if txn.IsPessimistic() {
				must(t, txn.LockKeysWithWaitTime(ctx, kv.LockAlwaysWait, numberedTo(count)...))
			}
			for _, key := range numberedTo(count) {
				must(t, txn.Set(key, value))
			}
			must(t, txn.Commit(ctx))
			from, err := now(t, c).Iter(nil, nil)
			keys, values := drain(t, from, err, 2*count)
			expectNumbered(t, keys, 0, count)
			for i := range values {
				if !bytes.Equal(values[i], value) {
					t.Fatalf("%q = %q", keys[i], values[i])
				}
			}
		}
		untilNoLocks(t, ctx, c)
	})
}

func TestTxnLimits(t *testing.T) {
	s := start(t, "1")
	ctx, c := testContext(t), s.openTxn()
	txn := begin(t, c)
	must(t, txn.Set([]byte("k"), make([]byte, 5<<20)))
	must(t, txn.Commit(ctx))
	txn = begin(t, c)
	must(t, txn.Set(bytes.Repeat([]byte("k"), 9<<10), []byte("v")))
	if err := txn.Commit(ctx); err == nil {
		t.Fatal("a key of 9 KiB was taken")
	}
	value, err := get(ctx, latest(c), []byte("k"))
	must(t, err)
	if len(value) != 5<<20 {
		t.Fatalf("%d bytes", len(value))
	}
}
