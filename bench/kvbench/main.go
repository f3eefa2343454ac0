// Kvbench loads a key-value server through its own unmodified client and says what an operation
// cost: in time to the caller, and in processor time to the server.
//
// It speaks to a TiKV-compatible server through client-go, raw or transactional, and to etcd
// through etcd's client. The server's processor time is read from /proc, so that a client that
// shares the machine with it does not blur the figure.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/pingcap/log"
	"github.com/tikv/client-go/v2/config"
)

// options is the command line.
type options struct {
	kind      string
	addr      string
	op        string
	clients   int
	ops       int
	valueSize int
	keys      int
	conns     uint
	batch     int
	pids      string
	header    bool
	tsv       bool
	since     int64
	storeAddr string
	probeKey  string
}

func parse() options {
	var o options
	flag.StringVar(&o.kind, "kind", "raw", "raw, txn (async commit and 1PC), txnasync, txn2pc or etcd")
	flag.StringVar(&o.addr, "addr", "127.0.0.1:2379", "placement driver or etcd, comma separated")
	flag.StringVar(&o.op, "op", "put", "put, get, mix (half and half), put2, swap (read two, write two), getat, commit, load (in order) or probe")
	flag.IntVar(&o.clients, "clients", 16, "callers at once")
	flag.IntVar(&o.ops, "ops", 100000, "operations in all")
	flag.IntVar(&o.valueSize, "size", 100, "bytes of a value")
	flag.IntVar(&o.keys, "keys", 100000, "how many keys there are")
	flag.UintVar(&o.conns, "conns", 4, "connections")
	flag.IntVar(&o.batch, "batch", 1000, "records in a batch of load")
	flag.StringVar(&o.pids, "pids", "", "processes of the server, comma separated")
	flag.BoolVar(&o.header, "header", false, "print the names of the columns first")
	flag.BoolVar(&o.tsv, "tsv", false, "print tab separated fields and no table row")
	flag.Int64Var(&o.since, "since", 0, "probe: nanoseconds since 1970 at the server's launch")
	flag.StringVar(&o.storeAddr, "tikv", "127.0.0.1:20160", "probe: the store's address")
	flag.StringVar(&o.probeKey, "probekey", "", "probe: read this key; empty: put one")
	flag.Parse()
	return o
}

func main() {
	o := parse()
	quiet(o.conns)
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "kvbench:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	if o.clients < 1 || o.ops < o.clients || o.keys < 2 || o.batch < 1 {
		return fmt.Errorf("at least 1 client, 2 keys, records in a batch, an operation a client")
	}
	switch o.op {
	case "probe":
		return probe(o)
	case "load", "put", "get", "mix", "put2", "swap", "getat", "commit":
	default:
		return fmt.Errorf("unknown operation %q", o.op)
	}
	server, err := open(o)
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", o.addr, err)
	}
	defer server.close()
	warm(context.Background(), server, o)
	result := measure(context.Background(), server, o)
	if o.header {
		fmt.Println(result.header(o.tsv))
	}
	fmt.Println(result.row(o))
	if result.errors > 0 {
		return fmt.Errorf("%d of %d calls failed, the first: %w", result.errors, o.ops, result.first)
	}
	return nil
}

// quiet keeps client-go's log away and sets what it reads from global settings only.
func quiet(conns uint) {
	logger, properties, err := log.InitLogger(&log.Config{Level: "fatal"})
	if err == nil {
		log.ReplaceGlobals(logger, properties)
	}
	config.UpdateGlobal(func(c *config.Config) { c.TiKVClient.GrpcConnectionCount = conns })
}

func addresses(list string) []string { return strings.Split(list, ",") }
