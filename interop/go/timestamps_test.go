package interop

import (
	"bytes"
	"context"
	"sync"
	"testing"

	pd "github.com/tikv/pd/client"
)

func openPlacement(t *testing.T, addr string) pd.Client {
	t.Helper()
	client, err := pd.NewClientWithContext(testContext(t), []string{addr}, pd.SecurityOption{})
	must(t, err)
	t.Cleanup(client.Close)
	return client
}

func stamp(physical, logical int64) int64 { return physical<<18 | logical }

func TestTimestampsGrow(t *testing.T) {
	s := start(t, "1")
	ctx := testContext(t)
	last := growing(t, ctx, openPlacement(t, s.addr), 2_000, 0)
	s.kill()
	s.launch()
	growing(t, ctx, openPlacement(t, s.addr), 2_000, last)
}

func growing(t *testing.T, ctx context.Context, c pd.Client, count int, last int64) int64 {
	t.Helper()
	for i := 0; i < count; i++ {
		physical, logical, err := c.GetTS(ctx)
		must(t, err)
		if now := stamp(physical, logical); now <= last {
			t.Fatalf("timestamp %d after %d", now, last)
		} else {
			last = now
		}
	}
	return last
}

func TestTimestampsAreUnique(t *testing.T) {
	ctx, c := testContext(t), openPlacement(t, start(t, "1").addr)
	const callers, each = 32, 500
	found := make([][]int64, callers)
	var all sync.WaitGroup
	for caller := range found {
		all.Add(1)
		go func(caller int) {
			defer all.Done()
			for i := 0; i < each; i++ {
				physical, logical, err := c.GetTS(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				found[caller] = append(found[caller], stamp(physical, logical))
			}
		}(caller)
	}
	all.Wait()
	seen := map[int64]bool{}
	for _, stamps := range found {
		for _, now := range stamps {
			if seen[now] {
				t.Fatalf("timestamp %d was given twice", now)
			}
			seen[now] = true
		}
	}
}

func TestPlacementKnowsTheCluster(t *testing.T) {
	ctx, c := testContext(t), openPlacement(t, start(t, "1").addr)
	stores, err := c.GetAllStores(ctx)
	must(t, err)
	if len(stores) != nodeCount(t) {
		t.Fatalf("stores: %v", stores)
	}
	ids := map[uint64]bool{}
	for _, store := range stores {
		if store.GetAddress() == "" || store.GetVersion() == "" {
			t.Fatalf("store: %v", store)
		}
		ids[store.GetId()] = true
	}
	region, err := c.GetRegion(ctx, []byte("k"))
	must(t, err)
	if region.Meta.GetId() == 0 || !ids[region.Leader.GetStoreId()] {
		t.Fatalf("region: %v", region)
	}
	// Its members may change between the two calls.
	same, err := c.GetRegionByID(ctx, region.Meta.GetId())
	must(t, err)
	if same.Meta.GetId() != region.Meta.GetId() || !bytes.Equal(same.Meta.GetEndKey(), region.Meta.GetEndKey()) {
		t.Fatalf("region by id: %v, by key: %v", same.Meta, region.Meta)
	}
	first, err := c.UpdateServiceGCSafePoint(ctx, "interop", 3600, 1)
	must(t, err)
	if first > 1 {
		t.Fatalf("safe point %d", first)
	}
}
