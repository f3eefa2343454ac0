package interop

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"testing"

	tikverr "github.com/tikv/client-go/v2/error"
	"github.com/tikv/client-go/v2/oracle"
	"github.com/tikv/client-go/v2/txnkv"
	"github.com/tikv/client-go/v2/txnkv/transaction"
	"github.com/tikv/client-go/v2/txnkv/txnutil"
)

// fileSystem keeps its metadata as a distributed file system does: nodes, entries of folders and counters
// in small optimistic transactions with async commit and 1PC, tried again when the text of the error says so.
type fileSystem struct{ c *txnkv.Client }

// update runs a transaction until it commits.
func (f fileSystem) update(ctx context.Context, do func(*transaction.KVTxn) error) error {
	for {
		txn, err := f.c.Begin()
		if err != nil {
			return err
		}
		txn.SetEnable1PC(true)
		txn.SetEnableAsyncCommit(true)
		if err = do(txn); err != nil {
			_ = txn.Rollback()
			return err
		}
		if err = txn.Commit(ctx); err == nil {
			return nil
		}
		if text := err.Error(); !strings.Contains(text, "write conflict") && !strings.Contains(text, "TxnLockNotFound") {
			return err
		}
	}
}

func readCounter(ctx context.Context, from getter, key string) (uint64, error) {
	value, err := get(ctx, from, []byte(key))
	if tikverr.IsErrNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(value), nil
}

func (f fileSystem) create(ctx context.Context, folder, name string) error {
	return f.update(ctx, func(txn *transaction.KVTxn) error {
		next, err := readCounter(ctx, txn, "CnextInode")
		if err != nil {
			return err
		}
		number := make([]byte, 8)
		binary.LittleEndian.PutUint64(number, next+1)
		if err := txn.Set([]byte("CnextInode"), number); err != nil {
			return err
		}
		node := fmt.Sprintf("A%08dI", next+1)
		if err := txn.Set([]byte(node), bytes.Repeat([]byte("a"), 73)); err != nil {
			return err
		}
		return txn.Set([]byte("A"+folder+"D"+name), number)
	})
}

func TestTxnFileSystem(t *testing.T) {
	s := start(t, "1")
	ctx, f := testContext(t), fileSystem{s.openTxn()}
	const callers, each = 8, 25
	var all sync.WaitGroup
	for caller := 0; caller < callers; caller++ {
		all.Add(1)
		go func(caller int) {
			defer all.Done()
			for i := 0; i < each; i++ {
				if err := f.create(ctx, "root", fmt.Sprintf("%d-%d", caller, i)); err != nil {
					t.Errorf("%+v", err)
					return
				}
			}
		}(caller)
	}
	all.Wait()
	count, err := readCounter(ctx, latest(f.c), "CnextInode")
	must(t, err)
	if count != callers*each {
		t.Fatalf("%d nodes", count)
	}
	expectEntries(t, f, callers*each)
	// Its own collection: locks before, then a safe point some hours ago.
	hoursAgo := timestamp(t, f.c) - oracle.ComposeTS(3*3_600_000, 0)
	_, err = f.c.GetPDClient().UpdateGCSafePoint(ctx, hoursAgo)
	must(t, err)
	_, err = f.c.DeleteRange(ctx, []byte("ArootD"), []byte("ArootE"), 1)
	must(t, err)
	expectEntries(t, f, 0)
}

// expectEntries lists a folder as a file system does.
func expectEntries(t *testing.T, f fileSystem, want int) {
	t.Helper()
	s := latest(f.c)
	s.SetScanBatchSize(10_240)
	s.SetNotFillCache(true)
	s.SetPriority(txnutil.PriorityLow)
	from, err := s.Iter([]byte("ArootD"), []byte("ArootE"))
	keys, values := drain(t, from, err, 100_000)
	seen := map[string]bool{}
	for _, value := range values {
		seen[string(value)] = true
	}
	if len(keys) != want || len(seen) != want {
		t.Fatalf("%d entries, %d nodes of %d", len(keys), len(seen), want)
	}
}
