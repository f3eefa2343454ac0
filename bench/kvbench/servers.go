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
	close()
}

func open(o options) (server, error) {
	switch o.kind {
	case "raw":
		client, err := rawkv.NewClientWithOpts(context.Background(), addresses(o.addr))
		return raw{client}, err
	case "txn", "txn2pc":
		client, err := txnkv.NewClient(addresses(o.addr))
		return txn{client, o.kind == "txn"}, err
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

func (r raw) close() { _ = r.client.Close() }

type txn struct {
	client *txnkv.Client
	// fast: with async commit and commit in one phase.
	fast bool
}

func (t txn) batch(ctx context.Context, keys, values [][]byte) error {
	transaction, err := t.client.Begin()
	if err != nil {
		return err
	}
	transaction.SetEnableAsyncCommit(t.fast)
	transaction.SetEnable1PC(t.fast)
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

func (e etcd) close() {
	for _, client := range e.clients {
		_ = client.Close()
	}
}
