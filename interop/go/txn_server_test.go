package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	tikverr "github.com/tikv/client-go/v2/error"
	"github.com/tikv/client-go/v2/tikv"
	"github.com/tikv/client-go/v2/tikvrpc"
	"github.com/tikv/client-go/v2/txnkv"
	"github.com/tikv/client-go/v2/txnkv/transaction"
	"github.com/tikv/client-go/v2/txnkv/txnsnapshot"
)

type iterator interface {
	Valid() bool
	Key() []byte
	Value() []byte
	Next() error
	Close()
}

// openTxn opens a client of transactions in the mode of the server.
func (s *server) openTxn() *txnkv.Client {
	s.t.Helper()
	client, err := openTxnAt(s.addr, s.apiVersion)
	if err != nil {
		s.t.Fatalf("%+v", err)
	}
	s.t.Cleanup(func() { _ = client.Close() })
	return client
}

func openTxnAt(addr, apiVersion string) (*txnkv.Client, error) {
	var options []txnkv.ClientOpt
	if apiVersion == "2" {
		options = append(options,
			txnkv.WithAPIVersion(kvrpcpb.APIVersion_V2), txnkv.WithKeyspace("DEFAULT"))
	}
	return txnkv.NewClient([]string{addr}, options...)
}

// inEveryTxnMode runs a test against a server of each API version that takes transactions.
func inEveryTxnMode(t *testing.T, test func(t *testing.T, ctx context.Context, c *txnkv.Client)) {
	for _, version := range []string{"1", "2"} {
		t.Run("api-version-"+version, func(t *testing.T) {
			test(t, testContext(t), start(t, version).openTxn())
		})
	}
}

func begin(t *testing.T, c *txnkv.Client) *transaction.KVTxn {
	t.Helper()
	txn, err := c.Begin()
	must(t, err)
	return txn
}

// write commits pairs of words in one transaction.
func write(t *testing.T, ctx context.Context, c *txnkv.Client, pairs ...string) {
	t.Helper()
	txn := begin(t, c)
	for i := 0; i < len(pairs); i += 2 {
		must(t, txn.Set([]byte(pairs[i]), []byte(pairs[i+1])))
	}
	must(t, txn.Commit(ctx))
}

// latest reads what is newest, as clients do that have no transaction.
func latest(c *txnkv.Client) *txnsnapshot.KVSnapshot { return c.GetSnapshot(math.MaxUint64) }

// now reads as of a timestamp of now.
func now(t *testing.T, c *txnkv.Client) *txnsnapshot.KVSnapshot {
	t.Helper()
	return c.GetSnapshot(timestamp(t, c))
}

func timestamp(t *testing.T, c *txnkv.Client) uint64 {
	t.Helper()
	stamp, err := c.GetTimestamp(testContext(t))
	must(t, err)
	return stamp
}

// expectIn checks the value of a key; "" is for a key that is not there.
func expectIn(t *testing.T, ctx context.Context, from getter, key, want string) {
	t.Helper()
	value, err := get(ctx, from, []byte(key))
	if want == "" && tikverr.IsErrNotFound(err) {
		return
	}
	must(t, err)
	if string(value) != want || want == "" {
		t.Fatalf("%s = %q, wanted %q", key, value, want)
	}
}

// drain returns at most limit keys and values of an iterator.
func drain(t *testing.T, from iterator, err error, limit int) (keys, values [][]byte) {
	t.Helper()
	must(t, err)
	defer from.Close()
	for ; from.Valid() && len(keys) < limit; must(t, from.Next()) {
		keys = append(keys, append([]byte(nil), from.Key()...))
		values = append(values, append([]byte(nil), from.Value()...))
	}
	return keys, values
}

// askRegion asks the region of a key, until it is where the client takes it to be. Returns the answer, and which
// region it was.
func askRegion(
	t *testing.T, ctx context.Context, c *txnkv.Client, key []byte, request func(*tikv.KeyLocation) *tikvrpc.Request,
) (*tikvrpc.Response, *tikv.KeyLocation) {
	t.Helper()
	for {
		bo := tikv.NewBackofferWithVars(ctx, 20_000, nil)
		location, err := c.GetRegionCache().LocateKey(bo, key)
		must(t, err)
		resp, err := c.SendReq(bo, request(location), location.Region, 20*time.Second)
		must(t, err)
		regionError, err := resp.GetRegionError()
		must(t, err)
		if regionError == nil {
			return resp, location
		}
		must(t, bo.Backoff(tikv.BoRegionMiss(), errors.New(regionError.String())))
	}
}

// scanLocks returns all locks that there are up to now.
func scanLocks(t *testing.T, ctx context.Context, c *txnkv.Client) []*kvrpcpb.LockInfo {
	t.Helper()
	var found []*kvrpcpb.LockInfo
	var start []byte
	maxVersion := timestamp(t, c)
	for {
		resp, location := askRegion(t, ctx, c, start, func(region *tikv.KeyLocation) *tikvrpc.Request {
			return tikvrpc.NewRequest(tikvrpc.CmdScanLock, &kvrpcpb.ScanLockRequest{
				MaxVersion: maxVersion, Limit: 100_000, StartKey: start, EndKey: region.EndKey,
			})
		})
		answer := resp.Resp.(*kvrpcpb.ScanLockResponse)
		if answer.GetError() != nil {
			t.Fatalf("%v", answer.GetError())
		}
		found = append(found, answer.GetLocks()...)
		if start = location.EndKey; len(start) == 0 {
			return found
		}
	}
}

// untilNoLocks waits for what the client commits in the background.
func untilNoLocks(t *testing.T, ctx context.Context, c *txnkv.Client) {
	t.Helper()
	for {
		locks := scanLocks(t, ctx, c)
		if len(locks) == 0 {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%d locks are left: %v", len(locks), locks[0])
		}
	}
}

// splitAt returns once regions begin at these keys.
func splitAt(t *testing.T, ctx context.Context, c *txnkv.Client, keys ...[]byte) {
	t.Helper()
	for {
		// A border that is there already is dropped, and one of a region that is busy refused.
		_, err := c.SplitRegions(ctx, keys, false, nil)
		missing := 0
		for _, key := range keys {
			location, err := c.GetRegionCache().LocateKey(tikv.NewBackofferWithVars(ctx, 20_000, nil), key)
			must(t, err)
			if !bytes.Equal(location.StartKey, key) {
				c.GetRegionCache().InvalidateCachedRegion(location.Region)
				missing++
			}
		}
		if missing == 0 {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%d borders are missing: %v", missing, err)
		}
	}
}

func isConflict(err error) bool {
	return err != nil && tikverr.IsErrWriteConflict(err)
}

func numberedTo(count int) [][]byte {
	keys := make([][]byte, count)
	for i := range keys {
		keys[i] = numbered(i)
	}
	return keys
}

// writeNumbered commits keys of which each is its own value.
func writeNumbered(t *testing.T, ctx context.Context, c *txnkv.Client, count int) {
	t.Helper()
	txn := begin(t, c)
	for _, key := range numberedTo(count) {
		must(t, txn.Set(key, key))
	}
	must(t, txn.Commit(ctx))
}

func way(pessimistic, async, onePC, causal bool) func(*transaction.KVTxn) {
	return func(txn *transaction.KVTxn) {
		txn.SetPessimistic(pessimistic)
		txn.SetEnableAsyncCommit(async)
		txn.SetEnable1PC(onePC)
		txn.SetCausalConsistency(causal)
	}
}

// ways are all ways to commit that this client knows, by their names.
func ways() map[string]func(*transaction.KVTxn) {
	all := map[string]func(*transaction.KVTxn){}
	for bits := 0; bits < 16; bits++ {
		pessimistic, async, onePC, causal := bits&1 != 0, bits&2 != 0, bits&4 != 0, bits&8 != 0
		name := fmt.Sprintf("pessimistic=%v async=%v 1pc=%v causal=%v", pessimistic, async, onePC, causal)
		all[name] = way(pessimistic, async, onePC, causal)
	}
	return all
}
