//go:build newest

package interop

import (
	"context"

	"github.com/tikv/client-go/v2/kv"
	"github.com/tikv/client-go/v2/tikvrpc/interceptor"
	"github.com/tikv/client-go/v2/txnkv"
	"github.com/tikv/client-go/v2/txnkv/transaction"
	"github.com/tikv/client-go/v2/txnkv/txnsnapshot"
)

// What differs between the two versions of the client, in one form.

type getter interface {
	Get(ctx context.Context, key []byte, options ...kv.GetOption) (kv.ValueEntry, error)
}

func get(ctx context.Context, from getter, key []byte) ([]byte, error) {
	entry, err := from.Get(ctx, key)
	return entry.Value, err
}

type batchGetter interface {
	BatchGet(ctx context.Context, keys [][]byte, options ...kv.BatchGetOption) (map[string]kv.ValueEntry, error)
}

func batchGet(ctx context.Context, from batchGetter, keys [][]byte) (map[string][]byte, error) {
	entries, err := from.BatchGet(ctx, keys)
	values := make(map[string][]byte, len(entries))
	for key, entry := range entries {
		values[key] = entry.Value
	}
	return values, err
}

// Without an upper bound it begins at the last key.
const reversesFromTheEnd = true

// snapshotReverse iterates below an upper bound.
func snapshotReverse(from *txnsnapshot.KVSnapshot, upper []byte) (iterator, error) {
	return from.IterReverse(upper, nil)
}

func bufferReverse(from *transaction.KVTxn, upper []byte) (iterator, error) {
	return from.IterReverse(upper, nil)
}

func collect(ctx context.Context, c *txnkv.Client, safePoint uint64) (uint64, error) {
	return c.GC(ctx, safePoint)
}

type interception func(next interceptor.RPCInterceptorFunc) interceptor.RPCInterceptorFunc

func intercepting(with interception) interceptor.RPCInterceptor {
	return interceptor.NewRPCInterceptor("doomed", with)
}
