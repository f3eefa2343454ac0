package main

import (
	"context"
	"fmt"
	"math/rand"
	"time"

	tikverr "github.com/tikv/client-go/v2/error"
	"github.com/tikv/client-go/v2/rawkv"
	"github.com/tikv/client-go/v2/txnkv"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// server is what is loaded: calls of a client library, and nothing of ours in between.
type server interface {
	put(ctx context.Context, key, value []byte) error
	// get says whether the key is there.
	get(ctx context.Context, key []byte) (bool, error)
	batch(ctx context.Context, keys, values [][]byte) error
	// swap reads two keys and writes both if neither has changed meanwhile, as often as it takes.
	swap(ctx context.Context, keys, values [2][]byte) error
	close()
}

// transactional servers can do more.
type transactional interface {
	// getAt is get at one timestamp, the same with each call.
	getAt(ctx context.Context, key []byte) (bool, error)
	// prepare begins a transaction that writes a key, and returns what commits it.
	prepare(key, value []byte) (commit func(context.Context) error, err error)
}

func open(o options) (server, error) {
	switch o.kind {
	case "raw":
		client, err := rawkv.NewClientWithOpts(context.Background(), addresses(o.addr))
		return raw{client}, err
	case "txn", "txnasync", "txn2pc":
		return openTxn(o)
	case "etcd":
		return openEtcd(o)
	}
	return nil, fmt.Errorf("unknown kind %q", o.kind)
}

type raw struct{ client *rawkv.Client }

func (r raw) put(ctx context.Context, key, value []byte) error {
	return r.client.Put(ctx, key, value)
}

func (r raw) get(ctx context.Context, key []byte) (bool, error) {
	value, err := r.client.Get(ctx, key)
	return value != nil, err
}

func (r raw) batch(ctx context.Context, keys, values [][]byte) error {
	return r.client.BatchPut(ctx, keys, values)
}

func (r raw) swap(context.Context, [2][]byte, [2][]byte) error {
	return fmt.Errorf("raw calls have no transactions")
}

func (r raw) close() { _ = r.client.Close() }

type txn struct {
	client *txnkv.Client
	// How it may commit beside in two phases.
	async, onePhase bool
	// When it was opened.
	opened uint64
}

func openTxn(o options) (server, error) {
	client, err := txnkv.NewClient(addresses(o.addr))
	if err != nil {
		return nil, err
	}
	opened, err := client.CurrentTimestamp("global")
	return txn{client, o.kind != "txn2pc", o.kind == "txn", opened}, err
}

func (t txn) begin() (*txnkv.KVTxn, error) {
	transaction, err := t.client.Begin()
	if err == nil {
		transaction.SetEnableAsyncCommit(t.async)
		transaction.SetEnable1PC(t.onePhase)
	}
	return transaction, err
}

// again tries as long as somebody else has just written one of the keys.
func again(try func() error) error {
	for {
		if err := try(); err == nil || !tikverr.IsErrWriteConflict(err) {
			return err
		}
	}
}

func (t txn) batch(ctx context.Context, keys, values [][]byte) error {
	return again(func() error { return t.tryBatch(ctx, keys, values) })
}

func (t txn) tryBatch(ctx context.Context, keys, values [][]byte) error {
	transaction, err := t.begin()
	if err != nil {
		return err
	}
	for i := range keys {
		if err := transaction.Set(keys[i], values[i]); err != nil {
			return err
		}
	}
	return transaction.Commit(ctx)
}

func (t txn) put(ctx context.Context, key, value []byte) error {
	return t.batch(ctx, [][]byte{key}, [][]byte{value})
}

func (t txn) get(ctx context.Context, key []byte) (bool, error) {
	transaction, err := t.client.Begin()
	if err != nil {
		return false, err
	}
	defer func() { _ = transaction.Rollback() }()
	_, err = transaction.Get(ctx, key)
	if tikverr.IsErrNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

func (t txn) getAt(ctx context.Context, key []byte) (bool, error) {
	// A snapshot of its own each time, as one keeps what it has read.
	_, err := t.client.GetSnapshot(t.opened).Get(ctx, key)
	if tikverr.IsErrNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

func (t txn) prepare(key, value []byte) (func(context.Context) error, error) {
	transaction, err := t.begin()
	if err != nil {
		return nil, err
	}
	return transaction.Commit, transaction.Set(key, value)
}

func (t txn) swap(ctx context.Context, keys, values [2][]byte) error {
	return again(func() error { return t.trySwap(ctx, keys, values) })
}

func (t txn) trySwap(ctx context.Context, keys, values [2][]byte) error {
	transaction, err := t.begin()
	if err != nil {
		return err
	}
	if _, err := transaction.BatchGet(ctx, keys[:]); err != nil {
		return err
	}
	for i := range keys {
		if err := transaction.Set(keys[i], values[i]); err != nil {
			return err
		}
	}
	return transaction.Commit(ctx)
}

func (t txn) close() { _ = t.client.Close() }

// etcd has one client a connection, because its client keeps one.
type etcd struct{ clients []*clientv3.Client }

// etcdTxnOpsMax is how many operations etcd takes in one transaction by default.
const etcdTxnOpsMax = 100

func openEtcd(o options) (server, error) {
	var e etcd
	for i := uint(0); i < o.conns; i++ {
		client, err := clientv3.New(clientv3.Config{
			Endpoints:   addresses(o.addr),
			DialTimeout: 2 * time.Second,
			Logger:      zap.NewNop(),
		})
		if err != nil {
			return nil, err
		}
		e.clients = append(e.clients, client)
	}
	return e, nil
}

func (e etcd) any() *clientv3.Client { return e.clients[rand.Intn(len(e.clients))] }

func (e etcd) put(ctx context.Context, key, value []byte) error {
	_, err := e.any().Put(ctx, string(key), string(value))
	return err
}

func (e etcd) get(ctx context.Context, key []byte) (bool, error) {
	response, err := e.any().Get(ctx, string(key))
	return err == nil && len(response.Kvs) > 0, err
}

func (e etcd) batch(ctx context.Context, keys, values [][]byte) error {
	ops := make([]clientv3.Op, 0, etcdTxnOpsMax)
	for i := range keys {
		ops = append(ops, clientv3.OpPut(string(keys[i]), string(values[i])))
		if len(ops) == etcdTxnOpsMax || i == len(keys)-1 {
			if _, err := e.any().Txn(ctx).Then(ops...).Commit(); err != nil {
				return err
			}
			ops = ops[:0]
		}
	}
	return nil
}

func (e etcd) swap(ctx context.Context, keys, values [2][]byte) error {
	client := e.any()
	for {
		read, err := client.Txn(ctx).
			Then(clientv3.OpGet(string(keys[0])), clientv3.OpGet(string(keys[1]))).Commit()
		if err != nil {
			return err
		}
		var unchanged [2]clientv3.Cmp
		var puts [2]clientv3.Op
		for i := range keys {
			revision := int64(0)
			for _, pair := range read.Responses[i].GetResponseRange().Kvs {
				revision = pair.ModRevision
			}
			unchanged[i] = clientv3.Compare(clientv3.ModRevision(string(keys[i])), "=", revision)
			puts[i] = clientv3.OpPut(string(keys[i]), string(values[i]))
		}
		written, err := client.Txn(ctx).If(unchanged[:]...).Then(puts[:]...).Commit()
		if err != nil || written.Succeeded {
			return err
		}
	}
}

func (e etcd) close() {
	for _, client := range e.clients {
		_ = client.Close()
	}
}
