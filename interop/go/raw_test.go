package interop

import (
	"bytes"
	"context"
	"testing"

	"github.com/tikv/client-go/v2/rawkv"
)

func expectValue(t *testing.T, ctx context.Context, c *rawkv.Client, key, want []byte) {
	t.Helper()
	value, err := c.Get(ctx, key)
	must(t, err)
	if !bytes.Equal(value, want) || (value == nil) != (want == nil) {
		t.Fatalf("get %q: %q, wanted %q", key, value, want)
	}
}

func words(texts ...string) [][]byte {
	var list [][]byte
	for _, text := range texts {
		list = append(list, []byte(text))
	}
	return list
}

func expectWords(t *testing.T, got [][]byte, want ...string) {
	t.Helper()
	if !bytes.Equal(bytes.Join(got, []byte(",")), bytes.Join(words(want...), []byte(","))) {
		t.Fatalf("got %q, wanted %q", got, want)
	}
}

func TestPutGetDelete(t *testing.T) {
	inEveryMode(t, func(t *testing.T, ctx context.Context, c *rawkv.Client) {
		if c.ClusterID() == 0 {
			t.Fatal("the cluster has no id")
		}
		key, value := []byte("Company"), []byte("PingCAP")
		expectValue(t, ctx, c, key, nil)
		must(t, c.Put(ctx, key, value))
		expectValue(t, ctx, c, key, value)
		must(t, c.Put(ctx, key, []byte("other")))
		expectValue(t, ctx, c, key, []byte("other"))
		must(t, c.Delete(ctx, key))
		expectValue(t, ctx, c, key, nil)
		must(t, c.Delete(ctx, key))
	})
}

func TestBatches(t *testing.T) {
	inEveryMode(t, func(t *testing.T, ctx context.Context, c *rawkv.Client) {
		keys := words("k3", "k1", "k2")
		must(t, c.BatchPut(ctx, keys, words("v3", "v1", "v2")))
		values, err := c.BatchGet(ctx, words("k1", "none", "k3"))
		must(t, err)
		expectWords(t, values, "v1", "", "v3")
		if values[1] != nil {
			t.Fatal("a missing key has a value")
		}
		must(t, c.BatchDelete(ctx, words("k1", "k2", "none")))
		values, err = c.BatchGet(ctx, words("k1", "k2", "k3"))
		must(t, err)
		expectWords(t, values, "", "", "v3")
	})
}

func TestScans(t *testing.T) {
	inEveryMode(t, func(t *testing.T, ctx context.Context, c *rawkv.Client) {
		must(t, c.BatchPut(ctx, words("a", "b", "c", "d"), words("1", "2", "3", "4")))
		keys, values, err := c.Scan(ctx, []byte("b"), []byte("d"), 10)
		must(t, err)
		expectWords(t, keys, "b", "c")
		expectWords(t, values, "2", "3")
		keys, _, err = c.Scan(ctx, nil, nil, 3)
		must(t, err)
		expectWords(t, keys, "a", "b", "c")
		keys, values, err = c.Scan(ctx, []byte("b"), nil, 10, rawkv.ScanKeyOnly())
		must(t, err)
		expectWords(t, keys, "b", "c", "d")
		expectWords(t, values, "", "", "")
		keys, values, err = c.ReverseScan(ctx, []byte("d"), []byte("b"), 10)
		must(t, err)
		expectWords(t, keys, "c", "b")
		expectWords(t, values, "3", "2")
		keys, _, err = c.ReverseScan(ctx, []byte("z"), nil, 2, rawkv.ScanKeyOnly())
		must(t, err)
		expectWords(t, keys, "d", "c")
		keys, _, err = c.Scan(ctx, []byte("x"), []byte("y"), 10)
		must(t, err)
		expectWords(t, keys)
	})
}

func TestDeleteRange(t *testing.T) {
	inEveryMode(t, func(t *testing.T, ctx context.Context, c *rawkv.Client) {
		must(t, c.BatchPut(ctx, words("a", "b", "c", "d"), words("1", "2", "3", "4")))
		must(t, c.DeleteRange(ctx, []byte("b"), []byte("d")))
		keys, _, err := c.Scan(ctx, nil, nil, 10)
		must(t, err)
		expectWords(t, keys, "a", "d")
	})
}

func TestCompareAndSwap(t *testing.T) {
	inEveryMode(t, func(t *testing.T, ctx context.Context, c *rawkv.Client) {
		c.SetAtomicForCAS(true)
		swap := func(previous, next []byte, wantPrevious []byte, wantSwapped bool) {
			t.Helper()
			was, swapped, err := c.CompareAndSwap(ctx, []byte("k"), previous, next)
			must(t, err)
			if swapped != wantSwapped || !bytes.Equal(was, wantPrevious) {
				t.Fatalf("previous %q, swapped %v", was, swapped)
			}
		}
		swap([]byte("no"), []byte("1"), nil, false)
		swap(nil, []byte("1"), nil, true)
		swap(nil, []byte("2"), []byte("1"), false)
		swap([]byte("0"), []byte("2"), []byte("1"), false)
		swap([]byte("1"), []byte("2"), []byte("1"), true)
		expectValue(t, ctx, c, []byte("k"), []byte("2"))
		must(t, c.Put(ctx, []byte("k"), []byte("3")))
		swap([]byte("3"), []byte("4"), []byte("3"), true)
	})
}

func TestTimeToLive(t *testing.T) {
	for _, version := range []string{"1ttl", "2"} {
		t.Run("api-version-"+version, func(t *testing.T) {
			ctx, c := testContext(t), start(t, version).open()
			expectTTL := func(key string, low, high uint64) {
				t.Helper()
				ttl, err := c.GetKeyTTL(ctx, []byte(key))
				must(t, err)
				if ttl == nil || *ttl < low || *ttl > high {
					t.Fatalf("time to live of %s: %v", key, ttl)
				}
			}
			must(t, c.PutWithTTL(ctx, []byte("long"), []byte("v"), 1000))
			must(t, c.Put(ctx, []byte("for-ever"), []byte("v")))
			must(t, c.BatchPutWithTTL(ctx, words("x", "y"), words("1", "2"), []uint64{500, 0}))
			expectTTL("long", 900, 1000)
			expectTTL("for-ever", 0, 0)
			expectTTL("x", 400, 500)
			expectTTL("y", 0, 0)
			ttl, err := c.GetKeyTTL(ctx, []byte("none"))
			must(t, err)
			if ttl != nil {
				t.Fatalf("a missing key lives %d s", *ttl)
			}
			must(t, c.PutWithTTL(ctx, []byte("short"), []byte("v"), 1))
			untilGone(t, ctx, c, []byte("short"))
			keys, _, err := c.Scan(ctx, nil, nil, 10)
			must(t, err)
			expectWords(t, keys, "for-ever", "long", "x", "y")
		})
	}
}

func TestTimeToLiveNeedsItsMode(t *testing.T) {
	ctx, c := testContext(t), start(t, "1").open()
	if err := c.PutWithTTL(ctx, []byte("k"), []byte("v"), 10); err == nil {
		t.Fatal("a server without time to live took one")
	}
	expectValue(t, ctx, c, []byte("k"), nil)
}

// untilGone asks until the key has expired.
func untilGone(t *testing.T, ctx context.Context, c *rawkv.Client, key []byte) {
	t.Helper()
	for {
		value, err := c.Get(ctx, key)
		must(t, err) // which is an error once the context is over
		if value == nil {
			return
		}
	}
}

func TestChecksum(t *testing.T) {
	inEveryMode(t, func(t *testing.T, ctx context.Context, c *rawkv.Client) {
		empty, err := c.Checksum(ctx, nil, nil)
		must(t, err)
		if empty.Crc64Xor != 0 || empty.TotalKvs != 0 || empty.TotalBytes != 0 {
			t.Fatalf("checksum of nothing: %+v", empty)
		}
		must(t, c.BatchPut(ctx, words("a", "b", "c"), words("1", "22", "333")))
		all, err := c.Checksum(ctx, nil, nil)
		must(t, err)
		// The prefix of a keyspace counts, and the client may take it off again.
		if all.TotalKvs != 3 || all.TotalBytes < 9 || all.TotalBytes > 9+3*4 || all.Crc64Xor == 0 {
			t.Fatalf("checksum of three pairs: %+v", all)
		}
		first, err := c.Checksum(ctx, []byte("a"), []byte("b"))
		must(t, err)
		rest, err := c.Checksum(ctx, []byte("b"), nil)
		must(t, err)
		if first.Crc64Xor^rest.Crc64Xor != all.Crc64Xor || first.TotalKvs+rest.TotalKvs != 3 {
			t.Fatalf("%+v and %+v do not make %+v", first, rest, all)
		}
	})
}
