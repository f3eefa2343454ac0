package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	probeLook    = 5 * time.Millisecond
	probeTimeout = 60 * time.Second
)

// probe asks a server that is just starting until it answers, and prints how long after its launch
// that was: its ports, the opened client, and the first call that succeeded, in milliseconds.
func probe(o options) error {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	if o.kind != "etcd" {
		// client-go sleeps a second between tries while the placement driver is away.
		if err := awaitPorts(ctx, o); err != nil {
			return err
		}
	}
	ports := time.Now()
	server, err := openSoon(ctx, o)
	if err != nil {
		return err
	}
	defer server.close()
	opened := time.Now()
	if err := callSoon(ctx, server, o.probeKey); err != nil {
		return err
	}
	done := time.Now()
	after := func(t time.Time) float64 { return float64(t.UnixNano()-o.since) / 1e6 }
	fmt.Printf("%.1f\t%.1f\t%.1f\n", after(ports), after(opened), after(done))
	return nil
}

// awaitPorts returns when the placement driver names a leader and the store's port is open.
func awaitPorts(ctx context.Context, o options) error {
	for {
		if leaderKnown(addresses(o.addr)[0]) {
			if conn, err := net.DialTimeout("tcp", o.storeAddr, time.Second); err == nil {
				return conn.Close()
			}
		}
		if err := pause(ctx, "no leader at "+o.addr); err != nil {
			return err
		}
	}
}

func leaderKnown(addr string) bool {
	response, err := http.Get("http://" + addr + "/pd/api/v1/leader")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return err == nil && strings.Contains(string(body), "client_urls")
}

func openSoon(ctx context.Context, o options) (server, error) {
	for {
		server, err := open(o)
		if err == nil {
			return server, nil
		}
		if late := pause(ctx, err.Error()); late != nil {
			return nil, late
		}
	}
}

func callSoon(ctx context.Context, s server, readKey string) error {
	for {
		found, err := true, error(nil)
		if readKey == "" {
			err = s.put(ctx, []byte("probe"), []byte("1"))
		} else {
			found, err = s.get(ctx, []byte(readKey))
		}
		if err == nil {
			if !found {
				return fmt.Errorf("key %q is not there", readKey)
			}
			return nil
		}
		if late := pause(ctx, err.Error()); late != nil {
			return late
		}
	}
}

// pause waits a moment before the next look, and fails with what was seen last when time is up.
func pause(ctx context.Context, seen string) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("not up after %s: %s", probeTimeout, seen)
	case <-time.After(probeLook):
		return nil
	}
}
