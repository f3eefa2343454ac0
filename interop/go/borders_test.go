package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/tikv/client-go/v2/util/codec"
)

// placement is asked with patience.
var placement = http.Client{Timeout: 10 * time.Second}

// placedRegion is a region as placement lists it.
type placedRegion struct {
	ID    uint64 `json:"id"`
	Start string `json:"start_key"`
}

// regions as placement knows them, in the order of their keys; nothing while it is on its way to another node.
func (s *server) regions() []placedRegion {
	resp, err := placement.Get("http://" + s.addr + "/pd/api/v1/regions")
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var page struct {
		Regions []placedRegion `json:"regions"`
	}
	if resp.StatusCode != http.StatusOK || json.NewDecoder(resp.Body).Decode(&page) != nil {
		return nil
	}
	sort.Slice(page.Regions, func(i, j int) bool { return page.Regions[i].Start < page.Regions[j].Start })
	return page.Regions
}

// splitRawAt returns once a region begins at each of these keys of a raw client.
func (s *server) splitRawAt(ctx context.Context, keys ...[]byte) {
	s.t.Helper()
	for _, key := range keys {
		if s.apiVersion == "2" {
			key = codec.EncodeBytes(nil, append([]byte("r\x00\x00\x00"), key...))
		}
		border := fmt.Sprintf("%X", key)
		for !s.isBorder(border) {
			if ctx.Err() != nil {
				s.t.Fatalf("no region begins at %s: %v", border, s.regions())
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// isBorder asks for a split if there is no such border. That is refused while the region is busy.
func (s *server) isBorder(border string) bool {
	regions := s.regions()
	behind := sort.Search(len(regions), func(i int) bool { return regions[i].Start > border })
	if behind == 0 {
		return false
	}
	if regions[behind-1].Start == border {
		return true
	}
	body := fmt.Sprintf(`{"name":"split-region","region_id":%d,"policy":"usekey","keys":["%s"]}`, regions[behind-1].ID, border)
	resp, err := placement.Post("http://"+s.addr+"/pd/api/v1/operators", "application/json", strings.NewReader(body))
	if err == nil {
		resp.Body.Close()
	}
	return false
}

func TestScansOverRegionBorders(t *testing.T) {
	const count = 1_000
	for _, version := range []string{"1", "1ttl", "2"} {
		t.Run("api-version-"+version, func(t *testing.T) {
			s := start(t, version)
			ctx, c := testContext(t), s.open()
			putNumbered(t, ctx, c, 0, count)
			// On keys, beside each other, and between two keys.
			between := append(numbered(600), '~')
			s.splitRawAt(ctx, numbered(100), numbered(101), numbered(350), between, numbered(900))
			for _, ends := range [][2]int{{0, count}, {95, 605}, {100, 101}, {100, 900}, {350, 601}, {901, 990}} {
				for _, limit := range []int{1, 99, 250, count} {
					first, end := ends[0], ends[1]
					want := end - first
					if want > limit {
						want = limit
					}
					keys, values, err := c.Scan(ctx, numbered(first), numbered(end), limit)
					must(t, err)
					expectNumbered(t, keys, first, first+want)
					if !bytes.Equal(values[want-1], keys[want-1]) {
						t.Fatalf("%q = %q", keys[want-1], values[want-1])
					}
					keys, _, err = c.ReverseScan(ctx, numbered(end), numbered(first), limit)
					must(t, err)
					reverse(keys)
					expectNumbered(t, keys, end-want, end)
				}
			}
			sum, err := c.Checksum(ctx, nil, nil)
			must(t, err)
			if sum.TotalKvs != count {
				t.Fatalf("%d pairs", sum.TotalKvs)
			}
			must(t, c.DeleteRange(ctx, numbered(50), numbered(950)))
			keys, _, err := c.Scan(ctx, nil, nil, count)
			must(t, err)
			expectNumbered(t, keys[:50], 0, 50)
			expectNumbered(t, keys[50:], 950, count)
		})
	}
}
