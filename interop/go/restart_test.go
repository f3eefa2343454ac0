package interop

import (
	"fmt"
	"testing"
)

// A client that was there before the server was killed goes on with the new one.
func TestTheClientOutlivesTheServer(t *testing.T) {
	s := start(t, "1")
	ctx, c := testContext(t), s.open()
	cluster := c.ClusterID()
	for round := 0; round < 3; round++ {
		for i := 0; i < 200; i++ {
			key := []byte(fmt.Sprintf("%d/%04d", round, i))
			must(t, c.Put(ctx, key, key))
		}
		s.kill()
		s.launch()
		for before := 0; before <= round; before++ {
			for i := 0; i < 200; i++ {
				key := []byte(fmt.Sprintf("%d/%04d", before, i))
				expectValue(t, ctx, c, key, key)
			}
		}
	}
	if again := s.open(); again.ClusterID() != cluster {
		t.Fatalf("the cluster was %d and is %d", cluster, again.ClusterID())
	}
}
