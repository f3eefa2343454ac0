package main

import (
	"context"
	"fmt"
	"math/rand"
	"strconv"
	"sync"
	"time"
)

func key(i int) []byte { return []byte(fmt.Sprintf("kvbench:%012d", i)) }

// template is a value of letters that does not compress to nothing.
func template(size int) []byte {
	value := make([]byte, size)
	for i := range value {
		value[i] = 'a' + byte(rand.Intn(26))
	}
	return value
}

// worker is one caller: it waits for each answer before it asks again.
type worker struct {
	server    server
	value     []byte
	latencies []time.Duration
	errors    int
	misses    int
	first     error
}

// warm lets every connection and the client's cache of regions be there before anything counts.
func warm(ctx context.Context, s server, o options) {
	var all sync.WaitGroup
	for i := 0; i < o.clients; i++ {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			_, _ = s.get(ctx, key(i%o.keys))
		}(i)
	}
	all.Wait()
}

// measure runs the load and takes the times around it.
func measure(ctx context.Context, s server, o options) result {
	value := template(o.valueSize)
	workers := make([]worker, o.clients)
	share := o.ops / o.clients
	var all sync.WaitGroup
	serverBefore, clientBefore, begin := serverCPU(o.pids), clientCPU(), time.Now()
	for i := range workers {
		workers[i] = worker{
			server:    s,
			value:     append([]byte(nil), value...),
			latencies: make([]time.Duration, 0, share),
		}
		all.Add(1)
		go func(i int) {
			defer all.Done()
			if o.op == "load" {
				workers[i].load(ctx, i*share, (i+1)*share, o.batch)
			} else {
				workers[i].call(ctx, o.op, share, o.keys, int64(i))
			}
		}(i)
	}
	all.Wait()
	return collect(workers, times{
		wall:   time.Since(begin),
		server: serverCPU(o.pids) - serverBefore,
		client: clientCPU() - clientBefore,
	}, share*o.clients)
}

// load writes the keys from first to end in order, in batches.
func (w *worker) load(ctx context.Context, first, end, batch int) {
	for from := first; from < end; from += batch {
		var keys, values [][]byte
		for i := from; i < from+batch && i < end; i++ {
			keys = append(keys, key(i))
			values = append(values, append([]byte(nil), w.numbered(i)...))
		}
		begin := time.Now()
		w.ended(begin, w.server.batch(ctx, keys, values))
	}
}

// call puts or gets keys drawn evenly, or swaps two of them.
func (w *worker) call(ctx context.Context, op string, ops, keys int, seed int64) {
	random := rand.New(rand.NewSource(seed + time.Now().UnixNano()))
	for i := 0; i < ops; i++ {
		drawn := random.Intn(keys)
		k := key(drawn)
		puts := op == "put" || (op == "mix" && random.Intn(2) == 0)
		begin := time.Now()
		if op == "swap" || op == "put2" {
			other := key((drawn + 1 + random.Intn(keys-1)) % keys)
			w.ended(begin, w.two(ctx, op, k, other, i))
			continue
		}
		if op == "getat" || op == "commit" {
			w.timed(ctx, op, k, i)
			continue
		}
		if puts {
			w.ended(begin, w.server.put(ctx, k, w.numbered(i)))
			continue
		}
		found, err := w.server.get(ctx, k)
		w.ended(begin, err)
		if err == nil && !found {
			w.misses++
		}
	}
}

// two writes two keys in one transaction.
func (w *worker) two(ctx context.Context, op string, first, second []byte, i int) error {
	value := append([]byte(nil), w.numbered(i)...)
	if op == "swap" {
		return w.server.swap(ctx, [2][]byte{first, second}, [2][]byte{value, value})
	}
	return w.server.batch(ctx, [][]byte{first, second}, [][]byte{value, value})
}

// timed reads at the timestamp of the start, or writes and counts the time of the commit only.
func (w *worker) timed(ctx context.Context, op string, key []byte, i int) {
	server, ok := w.server.(transactional)
	if !ok {
		w.ended(time.Now(), fmt.Errorf("%s needs transactions", op))
		return
	}
	if op == "getat" {
		begin := time.Now()
		found, err := server.getAt(ctx, key)
		w.ended(begin, err)
		if err == nil && !found {
			w.misses++
		}
		return
	}
	commit, err := server.prepare(key, append([]byte(nil), w.numbered(i)...))
	begin := time.Now()
	if err == nil {
		err = commit(ctx)
	}
	w.ended(begin, err)
}

// numbered is the value with a number in front, so that no two values in a row are equal.
func (w *worker) numbered(i int) []byte {
	copy(w.value, strconv.Itoa(i))
	return w.value
}

func (w *worker) ended(begin time.Time, err error) {
	w.latencies = append(w.latencies, time.Since(begin))
	if err != nil {
		w.errors++
		if w.first == nil {
			w.first = err
		}
	}
}
