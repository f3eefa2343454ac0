//go:build newest

package interop

import (
	"bytes"
	"context"
	"testing"

	"github.com/tikv/client-go/v2/tikv"
	"github.com/tikv/client-go/v2/txnkv"
)

// A large transaction is written while it goes on, and read back from what it has written.
func TestTxnPipelined(t *testing.T) {
	inEveryTxnMode(t, func(t *testing.T, ctx context.Context, c *txnkv.Client) {
		const count = 30_000
		splitAt(t, ctx, c, numbered(5_000), numbered(10_000))
		write(t, ctx, c, string(numbered(7)), "old")
		txn, err := c.Begin(tikv.WithPipelinedMemDB())
		must(t, err)
		for i, key := range numberedTo(count) {
			must(t, txn.Set(key, bytes.Repeat([]byte("v"), 100)))
			if i%10_000 == 9_999 {
				_, err := txn.GetMemBuffer().Flush(true)
				must(t, err)
			}
		}
		must(t, txn.GetMemBuffer().FlushWait())
		value, err := get(ctx, txn, numbered(7))
		must(t, err)
		if len(value) != 100 {
			t.Fatalf("%q", value)
		}
		must(t, txn.Set(numbered(8), []byte("twice")))
		_, err = txn.GetMemBuffer().Flush(true)
		must(t, err)
		must(t, txn.GetMemBuffer().FlushWait())
		must(t, txn.Commit(ctx))
		expectIn(t, ctx, latest(c), string(numbered(8)), "twice")
		from, err := now(t, c).Iter(nil, nil)
		keys, _ := drain(t, from, err, 2*count)
		expectNumbered(t, keys, 0, count)
		untilNoLocks(t, ctx, c)
	})
}

func TestTxnPipelinedRollback(t *testing.T) {
	inEveryTxnMode(t, func(t *testing.T, ctx context.Context, c *txnkv.Client) {
		write(t, ctx, c, string(numbered(7)), "old")
		txn, err := c.Begin(tikv.WithPipelinedMemDB())
		must(t, err)
		for _, key := range numberedTo(10_000) {
			must(t, txn.Set(key, key))
		}
		_, err = txn.GetMemBuffer().Flush(true)
		must(t, err)
		must(t, txn.GetMemBuffer().FlushWait())
		must(t, txn.Rollback())
		from, err := now(t, c).Iter(nil, nil)
		keys, values := drain(t, from, err, 20_000)
		if len(keys) != 1 || string(values[0]) != "old" {
			t.Fatalf("%d keys", len(keys))
		}
		untilNoLocks(t, ctx, c)
	})
}
