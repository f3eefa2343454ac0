package interop

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"
)

// etcdTimeout ends a test whose server does not answer any more.
const etcdTimeout = 2 * time.Minute

// etcd opens a client of etcd at the placement driver's address, as TiDB does.
func (s *server) etcd(ctx context.Context) *clientv3.Client {
	s.t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   []string{s.addr},
		DialTimeout: 10 * time.Second,
		Context:     ctx,
		Logger:      zap.NewNop(),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = client.Close() })
	return client
}

// withEtcd starts a server and gives two clients of it.
func withEtcd(t *testing.T) (context.Context, *server, *clientv3.Client, *clientv3.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), etcdTimeout)
	t.Cleanup(cancel)
	s := start(t, "1")
	return ctx, s, s.etcd(ctx), s.etcd(ctx)
}

// session is a lease that is kept alive for as long as its owner lives.
func session(t *testing.T, client *clientv3.Client, seconds int) *concurrency.Session {
	t.Helper()
	s, err := concurrency.NewSession(client, concurrency.WithTTL(seconds))
	must(t, err)
	return s
}

func TestEtcdOwnersAreElectedOneAfterTheOther(t *testing.T) {
	ctx, _, a, b := withEtcd(t)
	first, second := session(t, a, 60), session(t, b, 2)
	election := concurrency.NewElection(first, "/tidb/ddl/fg/owner")
	must(t, election.Campaign(ctx, "first"))
	other := concurrency.NewElection(second, "/tidb/ddl/fg/owner")
	won := make(chan error, 1)
	go func() { won <- other.Campaign(ctx, "second") }()
	leader, err := election.Leader(ctx)
	must(t, err)
	if string(leader.Kvs[0].Value) != "first" {
		t.Fatalf("%s leads", leader.Kvs[0].Value)
	}
	select {
	case err := <-won:
		t.Fatalf("two owners: %v", err)
	default:
	}
	must(t, election.Resign(ctx))
	must(t, <-won)

	// An owner that dies without a word is followed when its lease has run out.
	third := concurrency.NewElection(session(t, a, 60), "/tidb/ddl/fg/owner")
	go func() { won <- third.Campaign(ctx, "third") }()
	second.Orphan()
	must(t, <-won)
	leader, err = third.Leader(ctx)
	must(t, err)
	if string(leader.Kvs[0].Value) != "third" {
		t.Fatalf("%s leads", leader.Kvs[0].Value)
	}
}

func TestEtcdServicesAreFound(t *testing.T) {
	ctx, _, server, seeker := withEtcd(t)
	const prefix = "/topology/tidb/"
	_, err := server.Put(ctx, prefix+"old/info", "1")
	must(t, err)
	found, err := seeker.Get(ctx, prefix, clientv3.WithPrefix())
	must(t, err)
	if found.Count != 1 {
		t.Fatalf("%d services", found.Count)
	}
	watch := seeker.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(found.Header.Revision+1))
	alive := session(t, server, 2)
	_, err = server.Put(ctx, prefix+"new/info", "1", clientv3.WithLease(alive.Lease()))
	must(t, err)
	event := next(t, watch)
	if !event.IsCreate() || string(event.Kv.Key) != prefix+"new/info" {
		t.Fatalf("%v", event)
	}
	// It stays for as long as it is kept alive, longer than its time to live.
	left, err := server.TimeToLive(ctx, alive.Lease(), clientv3.WithAttachedKeys())
	must(t, err)
	if left.GrantedTTL != 2 || len(left.Keys) != 1 {
		t.Fatalf("%+v", left)
	}
	for begun := time.Now(); time.Since(begun) < 4*time.Second; {
		got, err := seeker.Get(ctx, prefix+"new/info")
		must(t, err)
		if got.Count != 1 {
			t.Fatal("it is gone while it is kept alive")
		}
	}
	must(t, alive.Close())
	event = next(t, watch)
	if event.Type != clientv3.EventTypeDelete || string(event.Kv.Key) != prefix+"new/info" {
		t.Fatalf("%v", event)
	}
}

// next is the next event of a watch.
func next(t *testing.T, watch clientv3.WatchChan) *clientv3.Event {
	t.Helper()
	answer, open := <-watch
	if !open {
		t.Fatal("the watch has ended")
	}
	must(t, answer.Err())
	if len(answer.Events) != 1 {
		t.Fatalf("%d events", len(answer.Events))
	}
	return answer.Events[0]
}

func TestEtcdLocksExclude(t *testing.T) {
	ctx, _, a, b := withEtcd(t)
	const workers, rounds = 6, 10
	var inside, entered atomic32
	var group sync.WaitGroup
	failures := make(chan error, workers)
	for worker := 0; worker < workers; worker++ {
		client := []*clientv3.Client{a, b}[worker%2]
		group.Add(1)
		go func() {
			defer group.Done()
			session, err := concurrency.NewSession(client, concurrency.WithTTL(60))
			if err != nil {
				failures <- err
				return
			}
			defer session.Close()
			mutex := concurrency.NewMutex(session, "/lock")
			for round := 0; round < rounds; round++ {
				if err := mutex.Lock(ctx); err != nil {
					failures <- err
					return
				}
				if inside.add(1) != 1 {
					failures <- fmt.Errorf("two hold the lock")
				}
				entered.add(1)
				inside.add(-1)
				if err := mutex.Unlock(ctx); err != nil {
					failures <- err
					return
				}
			}
		}()
	}
	group.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	if entered.add(0) != workers*rounds {
		t.Errorf("%d times", entered.add(0))
	}
}

// atomic32 is a counter. (The types of sync/atomic came after the oldest Go that this runs with.)
type atomic32 struct{ value int32 }

func (a *atomic32) add(delta int32) int32 { return atomic.AddInt32(&a.value, delta) }

func TestEtcdTransactionsMoveMoney(t *testing.T) {
	ctx, _, a, b := withEtcd(t)
	const accounts, workers, rounds = 4, 4, 20
	for i := 0; i < accounts; i++ {
		_, err := a.Put(ctx, fmt.Sprintf("account/%d", i), "100")
		must(t, err)
	}
	var group sync.WaitGroup
	failures := make(chan error, workers)
	for worker := 0; worker < workers; worker++ {
		client, worker := []*clientv3.Client{a, b}[worker%2], worker
		group.Add(1)
		go func() {
			defer group.Done()
			for round := 0; round < rounds; round++ {
				from := fmt.Sprintf("account/%d", (worker+round)%accounts)
				to := fmt.Sprintf("account/%d", (worker+3*round+1)%accounts)
				_, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
					if from == to {
						return nil
					}
					have, _ := strconv.Atoi(stm.Get(from))
					other, _ := strconv.Atoi(stm.Get(to))
					stm.Put(from, strconv.Itoa(have-7))
					stm.Put(to, strconv.Itoa(other+7))
					return nil
				})
				if err != nil {
					failures <- err
					return
				}
			}
		}()
	}
	group.Wait()
	close(failures)
	for err := range failures {
		t.Fatal(err)
	}
	all, err := a.Get(ctx, "account/", clientv3.WithPrefix())
	must(t, err)
	sum := 0
	for _, kv := range all.Kvs {
		have, _ := strconv.Atoi(string(kv.Value))
		sum += have
	}
	if sum != accounts*100 {
		t.Fatalf("%d in all: %v", sum, all.Kvs)
	}
}

// A watch goes on through a server that is killed, without a gap and without hearing anything twice.
func TestEtcdWatchOutlivesTheServer(t *testing.T) {
	if os.Getenv("PONTOON_NODES") != "" {
		t.Skip("a node of a cluster on one machine cannot be killed alone")
	}
	ctx, s, writer, seeker := withEtcd(t)
	first, err := writer.Put(ctx, "k", "0")
	must(t, err)
	alive := session(t, writer, 60)
	watch := seeker.Watch(ctx, "k", clientv3.WithRev(first.Header.Revision))
	const rounds = 3
	go func() {
		for i := 1; i <= rounds*50; i++ {
			for {
				_, err := writer.Put(ctx, "k", strconv.Itoa(i))
				if err == nil || ctx.Err() != nil {
					break
				}
			}
		}
	}()
	heard, last := first.Header.Revision-1, ""
	for killed := 0; last != strconv.Itoa(rounds*50); {
		answer, open := <-watch
		if !open {
			t.Fatal("the watch has ended")
		}
		must(t, answer.Err())
		for _, event := range answer.Events {
			// A put whose answer was lost is sent again: a revision more, and none is left out.
			if event.Kv.ModRevision <= heard {
				t.Fatalf("revision %d after %d", event.Kv.ModRevision, heard)
			}
			heard, last = event.Kv.ModRevision, string(event.Kv.Value)
			if event.Kv.Version != event.Kv.ModRevision-first.Header.Revision+1 {
				t.Fatalf("a gap: %v", event.Kv)
			}
		}
		if killed < rounds && heard-first.Header.Revision > int64(40*(killed+1)) {
			killed++
			s.kill()
			s.launch()
		}
	}
	left, err := seeker.TimeToLive(ctx, alive.Lease())
	must(t, err)
	if left.TTL <= 0 {
		t.Fatal("the session has not outlived the server")
	}
}

// Many puts at a time share proposals, so that the rate does not hang on one disk's sync.
func TestEtcdThousandPuts(t *testing.T) {
	ctx, _, a, b := withEtcd(t)
	const workers, puts = 32, 100
	var group sync.WaitGroup
	begun := time.Now()
	for worker := 0; worker < workers; worker++ {
		client, worker := []*clientv3.Client{a, b}[worker%2], worker
		group.Add(1)
		go func() {
			defer group.Done()
			for i := 0; i < puts; i++ {
				if _, err := client.Put(ctx, fmt.Sprintf("p/%d/%d", worker, i), "value"); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	group.Wait()
	took := time.Since(begun)
	t.Logf("%d puts by %d clients in %s: %.0f puts/s", workers*puts, workers, took, workers*puts/took.Seconds())
	found, err := a.Get(ctx, "p/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	must(t, err)
	if found.Count != workers*puts || found.Header.Revision != int64(1+workers*puts) {
		t.Fatalf("%d keys at revision %d", found.Count, found.Header.Revision)
	}
}
