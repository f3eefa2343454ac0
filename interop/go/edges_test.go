package interop

import (
	"bytes"
	"context"
	"fmt"
	"math/rand"
	"strings"
	"sync"
	"testing"

	"github.com/tikv/client-go/v2/rawkv"
)

func TestManyKeys(t *testing.T) {
	const count = 100_000
	inEveryMode(t, func(t *testing.T, ctx context.Context, c *rawkv.Client) {
		for first := 0; first < count; first += 10_000 {
			putNumbered(t, ctx, c, first, first+10_000)
		}
		next := 0
		for start := []byte(nil); next < count; {
			keys, values, err := c.Scan(ctx, start, nil, rawkv.MaxRawKVScanLimit)
			must(t, err)
			if len(keys) == 0 {
				t.Fatalf("the scan ended after %d keys", next)
			}
			for i := range keys {
				if !bytes.Equal(keys[i], numbered(next)) || !bytes.Equal(values[i], numbered(next)) {
					t.Fatalf("at %d: %q = %q", next, keys[i], values[i])
				}
				next++
			}
			start = append(keys[len(keys)-1], 0)
		}
		for end := []byte("l"); next > 0; {
			keys, _, err := c.ReverseScan(ctx, end, nil, rawkv.MaxRawKVScanLimit)
			must(t, err)
			if len(keys) == 0 {
				t.Fatalf("the reverse scan ended at %d", next)
			}
			for i := range keys {
				next--
				if !bytes.Equal(keys[i], numbered(next)) {
					t.Fatalf("at %d: %q", next, keys[i])
				}
			}
			end = keys[len(keys)-1]
		}
		sum, err := c.Checksum(ctx, nil, nil)
		must(t, err)
		if sum.TotalKvs != count {
			t.Fatalf("%d pairs", sum.TotalKvs)
		}
		// Without an end the older client does nothing.
		must(t, c.DeleteRange(ctx, nil, []byte("l")))
		keys, _, err := c.Scan(ctx, nil, nil, 1)
		must(t, err)
		expectWords(t, keys)
	})
}

func putNumbered(t *testing.T, ctx context.Context, c *rawkv.Client, first, end int) {
	t.Helper()
	var keys [][]byte
	for i := first; i < end; i++ {
		keys = append(keys, numbered(i))
	}
	must(t, c.BatchPut(ctx, keys, keys))
}

func TestBatchOfTenThousand(t *testing.T) {
	inEveryMode(t, func(t *testing.T, ctx context.Context, c *rawkv.Client) {
		var keys [][]byte
		for i := 0; i < 10_000; i++ {
			keys = append(keys, numbered(i))
		}
		must(t, c.BatchPut(ctx, keys, keys))
		values, err := c.BatchGet(ctx, keys)
		must(t, err)
		for i := range keys {
			if !bytes.Equal(values[i], keys[i]) {
				t.Fatalf("%q = %q", keys[i], values[i])
			}
		}
		must(t, c.BatchDelete(ctx, keys))
		values, err = c.BatchGet(ctx, keys)
		must(t, err)
		for i := range values {
			if values[i] != nil {
				t.Fatalf("%q is still there", keys[i])
			}
		}
	})
}

func TestLargeValues(t *testing.T) {
	inEveryMode(t, func(t *testing.T, ctx context.Context, c *rawkv.Client) {
		large := make([]byte, 1<<20)
		rand.New(rand.NewSource(1)).Read(large)
		for i := 0; i < 5; i++ {
			must(t, c.Put(ctx, numbered(i), large))
		}
		expectValue(t, ctx, c, numbered(3), large)
		_, values, err := c.Scan(ctx, nil, nil, 10)
		must(t, err)
		if len(values) != 5 || !bytes.Equal(values[4], large) {
			t.Fatalf("%d values", len(values))
		}
	})
}

func TestValueOverTheLimit(t *testing.T) {
	ctx, c := testContext(t), start(t, "1").open()
	err := c.Put(ctx, []byte("k"), make([]byte, 9<<20))
	if err == nil || !strings.Contains(err.Error(), "too large") {
		t.Fatalf("put of 9 MiB: %v", err)
	}
	must(t, c.Put(ctx, []byte("k"), []byte("v")))
	expectValue(t, ctx, c, []byte("k"), []byte("v"))
}

func TestKeyOverTheLimit(t *testing.T) {
	ctx, c := testContext(t), start(t, "1").open()
	if err := c.Put(ctx, make([]byte, 8<<10+1), []byte("v")); err == nil {
		t.Fatal("a key of 8 KiB and a byte was taken")
	}
	longest := bytes.Repeat([]byte("k"), 8<<10)
	must(t, c.Put(ctx, longest, []byte("v")))
	expectValue(t, ctx, c, longest, []byte("v"))
}

func TestEmptyValues(t *testing.T) {
	inEveryMode(t, func(t *testing.T, ctx context.Context, c *rawkv.Client) {
		must(t, c.Put(ctx, []byte("empty"), []byte{}))
		expectValue(t, ctx, c, []byte("empty"), []byte{})
		values, err := c.BatchGet(ctx, words("empty", "none"))
		must(t, err)
		if values[0] == nil || len(values[0]) != 0 || values[1] != nil {
			t.Fatalf("%q", values)
		}
		keys, values, err := c.Scan(ctx, nil, nil, 10)
		must(t, err)
		expectWords(t, keys, "empty")
		expectWords(t, values, "")
	})
}

func TestBinaryKeys(t *testing.T) {
	inEveryMode(t, func(t *testing.T, ctx context.Context, c *rawkv.Client) {
		var keys [][]byte
		for b := 0; b < 256; b++ {
			keys = append(keys, []byte{byte(b)}, []byte{byte(b), 0}, []byte{byte(b), 0, 0xff, byte(b)})
		}
		must(t, c.BatchPut(ctx, keys, keys))
		for _, key := range keys {
			expectValue(t, ctx, c, key, key)
		}
		found, values, err := c.Scan(ctx, nil, nil, 1000)
		must(t, err)
		if len(found) != len(keys) {
			t.Fatalf("%d keys", len(found))
		}
		for i := range keys {
			if !bytes.Equal(found[i], keys[i]) || !bytes.Equal(values[i], keys[i]) {
				t.Fatalf("%q where %q should be", found[i], keys[i])
			}
		}
	})
}

func TestManyCallersAtOnce(t *testing.T) {
	ctx, c := testContext(t), start(t, "1").open()
	failures := make(chan error, 64)
	var all sync.WaitGroup
	for caller := 0; caller < 64; caller++ {
		all.Add(1)
		go func(caller int) {
			defer all.Done()
			if err := writeAndRead(ctx, c, caller); err != nil {
				failures <- err
			}
		}(caller)
	}
	all.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
}

func writeAndRead(ctx context.Context, c *rawkv.Client, caller int) error {
	for i := 0; i < 100; i++ {
		key := []byte(fmt.Sprintf("%d/%d", caller, i))
		if err := c.Put(ctx, key, key); err != nil {
			return err
		}
		value, err := c.Get(ctx, key)
		if err != nil {
			return err
		}
		if !bytes.Equal(value, key) {
			return fmt.Errorf("%q = %q", key, value)
		}
	}
	return nil
}
