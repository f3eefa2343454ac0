package interop

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/tikv/client-go/v2/tikv"
	"github.com/tikv/client-go/v2/tikvrpc"
	"github.com/tikv/client-go/v2/txnkv"
)

func TestTxnCollection(t *testing.T) {
	inEveryTxnMode(t, func(t *testing.T, ctx context.Context, c *txnkv.Client) {
		write(t, ctx, c, "k", "1")
		before := timestamp(t, c)
		write(t, ctx, c, "k", "2")
		safePoint := timestamp(t, c)
		write(t, ctx, c, "k", "3")
		expectCollected(t, ctx, c, safePoint, safePoint)
		expectIn(t, ctx, c.GetSnapshot(safePoint), "k", "2")
		expectIn(t, ctx, now(t, c), "k", "3")
		expectTooEarly(t, ctx, c, before)
		// The store has heard of it too: what nobody can read any more is gone.
		untilVersions(t, ctx, c, "k", 2)
		expectIn(t, ctx, c.GetSnapshot(safePoint), "k", "2")
	})
}

// expectCollected collects up to a safe point, and checks how far placement lets it.
func expectCollected(t *testing.T, ctx context.Context, c *txnkv.Client, safePoint, want uint64) {
	t.Helper()
	taken, err := collect(ctx, c, safePoint)
	must(t, err)
	if taken != want {
		t.Fatalf("safe point %d, wanted %d", taken, want)
	}
}

// expectTooEarly reads until that is refused, because what it reads may be gone: by the store once it has heard of
// the safe point, or by the client if it has.
func expectTooEarly(t *testing.T, ctx context.Context, c *txnkv.Client, at uint64) {
	t.Helper()
	for {
		_, err := get(ctx, c.GetSnapshot(at), []byte("k"))
		if err != nil && strings.Contains(err.Error(), "GC life time is shorter") {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%+v", err)
		}
	}
}

// untilVersions waits until a key has so many versions left. In a keyspace this client asks for another key than
// it is told: one that it has encoded twice.
func untilVersions(t *testing.T, ctx context.Context, c *txnkv.Client, key string, want int) {
	t.Helper()
	if strings.HasSuffix(t.Name(), "api-version-2") {
		return
	}
	for {
		resp, _ := askRegion(t, ctx, c, []byte(key), func(*tikv.KeyLocation) *tikvrpc.Request {
			return tikvrpc.NewRequest(tikvrpc.CmdMvccGetByKey, &kvrpcpb.MvccGetByKeyRequest{Key: []byte(key)})
		})
		found := len(resp.Resp.(*kvrpcpb.MvccGetByKeyResponse).GetInfo().GetWrites())
		if found == want {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%d versions of %s are left, wanted %d", found, key, want)
		}
	}
}

// A service that says which versions it still needs, as a backup does, gets to read them.
func TestTxnCollectionStopsAtWhatServicesNeed(t *testing.T) {
	inEveryTxnMode(t, func(t *testing.T, ctx context.Context, c *txnkv.Client) {
		services := c.GetPDClient()
		// What a service is told is how far has been collected, or will be.
		expectMinimum := func(service string, ttl int64, safePoint, want uint64) {
			t.Helper()
			minimum, err := services.UpdateServiceGCSafePoint(ctx, service, ttl, safePoint)
			must(t, err)
			if minimum != want {
				t.Fatalf("%s is told %d, wanted %d", service, minimum, want)
			}
		}
		write(t, ctx, c, "k", "1")
		needed := timestamp(t, c)
		write(t, ctx, c, "k", "2")
		expectMinimum("backup", 3_600, needed, 0)
		expectCollected(t, ctx, c, timestamp(t, c), needed)
		expectIn(t, ctx, c.GetSnapshot(needed), "k", "1")
		// The collector of an SQL layer asks first, and is told how far it may go.
		expectMinimum("gc_worker", math.MaxInt64, timestamp(t, c), needed)
		// Who wants older ones comes too late.
		expectMinimum("late", 3_600, needed-1, needed)
		expectIn(t, ctx, c.GetSnapshot(needed), "k", "1")
		expectIn(t, ctx, now(t, c), "k", "2")
		// Its work is done.
		expectMinimum("backup", 0, 0, needed)
		end := timestamp(t, c)
		expectCollected(t, ctx, c, end, end)
		untilVersions(t, ctx, c, "k", 1)
		expectTooEarly(t, ctx, c, needed)
		expectIn(t, ctx, now(t, c), "k", "2")
	})
}
