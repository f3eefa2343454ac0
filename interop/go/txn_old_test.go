//go:build !newest

package interop

import (
	"context"

	"github.com/tikv/client-go/v2/tikvrpc/interceptor"
	"github.com/tikv/client-go/v2/txnkv"
	"github.com/tikv/client-go/v2/txnkv/transaction"
	"github.com/tikv/client-go/v2/txnkv/txnsnapshot"
)

// What differs between the two versions of the client, in one form.

type getter interface {
	Get(ctx context.Context, key []byte) ([]byte, error)
}

func get(ctx context.Context, from getter, key []byte) ([]byte, error) { return from.Get(ctx, key) }

type batchGetter interface {
	BatchGet(ctx context.Context, keys [][]byte) (map[string][]byte, error)
}

func batchGet(ctx context.Context, from batchGetter, keys [][]byte) (map[string][]byte, error) {
	return from.BatchGet(ctx, keys)
}

// Without an upper bound this version asks the first region, as if it held the last key.
const reversesFromTheEnd = false

// snapshotReverse iterates below an upper bound; this version knows no lower one.
func snapshotReverse(from *txnsnapshot.KVSnapshot, upper []byte) (iterator, error) {
	return from.IterReverse(upper)
}

func bufferReverse(from *transaction.KVTxn, upper []byte) (iterator, error) {
	return from.IterReverse(upper)
}

func collect(ctx context.Context, c *txnkv.Client, safePoint uint64) (uint64, error) {
	return c.GC(ctx, safePoint)
}

type interception func(next interceptor.RPCInterceptorFunc) interceptor.RPCInterceptorFunc

func intercepting(with interception) interceptor.RPCInterceptor {
	return interceptor.RPCInterceptor(with)
}
