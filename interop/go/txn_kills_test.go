package interop

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pingcap/failpoint"
	"github.com/tikv/client-go/v2/kv"
	"github.com/tikv/client-go/v2/tikvrpc"
	"github.com/tikv/client-go/v2/tikvrpc/interceptor"
	"github.com/tikv/client-go/v2/txnkv"
	"github.com/tikv/client-go/v2/txnkv/transaction"
	"github.com/tikv/client-go/v2/util"
)

// doomedKeys is how many keys a doomed transaction writes, in two regions.
const doomedKeys = 40

// doomed is a client in a process of its own, so that it can be killed at a chosen step.
type doomed struct {
	t       *testing.T
	command *exec.Cmd
	lines   *bufio.Scanner
	input   io.WriteCloser
}

// doom runs this program as a client that stops at a step: see runDoomed.
func doom(s *server, step, way string) *doomed {
	s.t.Helper()
	d := &doomed{t: s.t, command: exec.Command(os.Args[0])}
	d.command.Env = append(os.Environ(), "DOOMED="+strings.Join([]string{s.addr, s.apiVersion, step, way}, " "))
	d.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	d.command.Stderr = s.log
	out, err := d.command.StdoutPipe()
	must(s.t, err)
	d.input, err = d.command.StdinPipe()
	must(s.t, err)
	d.lines = bufio.NewScanner(out)
	must(s.t, d.command.Start())
	s.t.Cleanup(func() { d.kill() })
	return d
}

// mark begins the lines that are said: the client logs to the same place.
const mark = "> "

// says returns the next line that it says, "" at its end.
func (d *doomed) says() string {
	for d.lines.Scan() {
		if strings.HasPrefix(d.lines.Text(), mark) {
			return strings.TrimPrefix(d.lines.Text(), mark)
		}
	}
	return ""
}

// kill ends it in the middle of whatever it does, and returns what nobody had read.
func (d *doomed) kill() (unread []string) {
	if d.command.ProcessState != nil {
		return nil
	}
	_ = d.command.Process.Kill()
	for said := d.says(); said != ""; said = d.says() {
		unread = append(unread, said)
	}
	_ = d.command.Wait()
	return unread
}

// killAt checks where it stands, and kills it there.
func (d *doomed) killAt(step string) {
	d.t.Helper()
	if said := d.says(); said != step {
		d.t.Fatalf("the doomed client says %q, not %q", said, step)
	}
	d.kill()
}

// runDoomed is what runs in the process of its own. Steps:
//
//	locked       it holds pessimistic locks
//	prewritten   between prewrite and commit
//	committed    its primary is committed, and no other key
//	transfers    it transfers for ever, and says which were acknowledged
func runDoomed(arguments string) error {
	var addr, version, step, how string
	if _, err := fmt.Sscan(arguments, &addr, &version, &step, &how); err != nil {
		return err
	}
	c, err := openTxnAt(addr, version)
	if err != nil {
		return err
	}
	set := way(strings.Contains(how, "pessimistic"), strings.Contains(how, "async"), strings.Contains(how, "1pc"), false)
	// Fail points are for transactions that belong to a session.
	ctx := context.WithValue(context.Background(), util.SessionID, uint64(1))
	if step == "transfers" {
		return transferForEver(ctx, c, set)
	}
	txn, err := c.Begin()
	if err != nil {
		return err
	}
	set(txn)
	if err := stopAt(step, txn); err != nil {
		return err
	}
	keys := numberedTo(doomedKeys)
	if txn.IsPessimistic() {
		if err := txn.LockKeysWithWaitTime(ctx, kv.LockAlwaysWait, keys...); err != nil {
			return err
		}
	}
	if step == "locked" {
		stand(step)
	}
	for _, key := range keys {
		if err := txn.Set(key, []byte("new")); err != nil {
			return err
		}
	}
	if err := txn.Commit(ctx); err != nil {
		stand(strings.ReplaceAll(err.Error(), "\n", " "))
	}
	stand("committed")
	return nil
}

// stopAt makes a transaction stand still at a step.
func stopAt(step string, txn *transaction.KVTxn) error {
	switch step {
	case "prewritten":
		// It commits late if it is told to go on.
		txn.SetRPCInterceptor(intercepting(func(next interceptor.RPCInterceptorFunc) interceptor.RPCInterceptorFunc {
			return func(target string, req *tikvrpc.Request) (*tikvrpc.Response, error) {
				if req.Type == tikvrpc.CmdCommit {
					stand(step)
				}
				return next(target, req)
			}
		}))
	case "committed":
		// The client is compiled with fail points: it does not commit in the background.
		util.EnableFailpoints()
		if err := failpoint.Enable("tikvclient/asyncCommitDoNothing", "return(true)"); err != nil {
			return err
		}
		return failpoint.Enable("tikvclient/beforeCommitSecondaries", `return("skip")`)
	}
	return nil
}

// stand says where it is and stays there until it is told to go on, or killed.
func stand(step string) {
	fmt.Println(mark + step)
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		os.Exit(0)
	}
}

const (
	accounts = 40
	balance  = 1_000
)

func account(number int) []byte { return []byte(fmt.Sprintf("bank/%04d", number)) }

func openBank(t *testing.T, ctx context.Context, c *txnkv.Client) {
	t.Helper()
	splitAt(t, ctx, c, account(10), account(20), account(30))
	txn := begin(t, c)
	for number := 0; number < accounts; number++ {
		must(t, txn.Set(account(number), []byte(strconv.Itoa(balance))))
	}
	must(t, txn.Commit(ctx))
}

// transfer moves an amount between two accounts and leaves a receipt.
func transfer(ctx context.Context, c *txnkv.Client, set func(*transaction.KVTxn), random *rand.Rand, id string) error {
	txn, err := c.Begin()
	if err != nil {
		return err
	}
	set(txn)
	if err := tryTransfer(ctx, txn, random, id); err != nil {
		if txn.Valid() {
			_ = txn.Rollback()
		}
		return err
	}
	return nil
}

func tryTransfer(ctx context.Context, txn *transaction.KVTxn, random *rand.Rand, id string) error {
	from := random.Intn(accounts)
	to := (from + 1 + random.Intn(accounts-1)) % accounts
	var reads getter = txn
	if txn.IsPessimistic() {
		locks := kv.NewLockCtx(txn.StartTS(), kv.LockAlwaysWait, time.Now())
		if err := txn.LockKeys(ctx, locks, account(from), account(to)); err != nil {
			return err
		}
	}
	has, err := readBalance(ctx, reads, from)
	if err != nil {
		return err
	}
	other, err := readBalance(ctx, reads, to)
	if err != nil {
		return err
	}
	amount := random.Intn(100)
	if amount > has {
		amount = has
	}
	for key, value := range map[string]int{
		string(account(from)): has - amount, string(account(to)): other + amount, "receipt/" + id: amount,
	} {
		if err := txn.Set([]byte(key), []byte(strconv.Itoa(value))); err != nil {
			return err
		}
	}
	return txn.Commit(ctx)
}

func readBalance(ctx context.Context, from getter, number int) (int, error) {
	value, err := get(ctx, from, account(number))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(value))
}

func transferForEver(ctx context.Context, c *txnkv.Client, set func(*transaction.KVTxn)) error {
	random := rand.New(rand.NewSource(int64(os.Getpid())))
	for number := 0; ; number++ {
		id := fmt.Sprintf("%d-%d", os.Getpid(), number)
		if err := transfer(ctx, c, set, random, id); err == nil {
			fmt.Println(mark + id)
		}
	}
}

// checkBank reads all accounts, and the receipts of what was acknowledged, at one timestamp.
func checkBank(t *testing.T, ctx context.Context, c *txnkv.Client, at uint64, acknowledged []string) {
	t.Helper()
	s := c.GetSnapshot(at)
	from, err := s.Iter(account(0), []byte("bank0"))
	keys, values := drain(t, from, err, 2*accounts)
	sum := 0
	for _, value := range values {
		amount, err := strconv.Atoi(string(value))
		must(t, err)
		sum += amount
	}
	if len(keys) != accounts || sum != accounts*balance {
		t.Fatalf("%d accounts, sum %d: %q", len(keys), sum, values)
	}
	var receipts [][]byte
	for _, id := range acknowledged {
		receipts = append(receipts, []byte("receipt/"+id))
	}
	if len(receipts) == 0 {
		return
	}
	found, err := batchGet(ctx, c.GetSnapshot(at), receipts)
	must(t, err)
	if len(found) != len(acknowledged) {
		t.Fatalf("%d receipts of %d acknowledged transfers", len(found), len(acknowledged))
	}
}

// readers is what several find who read all doomed keys at once, each starting at another.
func readers(s *server) string {
	s.t.Helper()
	answers := make(chan string, 8)
	var all sync.WaitGroup
	for reader := 0; reader < cap(answers); reader++ {
		c := s.openTxn()
		all.Add(1)
		go func(reader int) {
			defer all.Done()
			answers <- readDoomed(testContext(s.t), c, reader*doomedKeys/cap(answers))
		}(reader)
	}
	all.Wait()
	first := <-answers
	for i := 1; i < cap(answers); i++ {
		if answer := <-answers; answer != first {
			s.t.Fatalf("one reads %s, another %s", first, answer)
		}
	}
	return first
}

func readDoomed(ctx context.Context, c *txnkv.Client, first int) string {
	stamp, err := c.GetTimestamp(ctx)
	if err != nil {
		return err.Error()
	}
	snapshot := c.GetSnapshot(stamp)
	answer, err := get(ctx, snapshot, numbered(first))
	if err != nil {
		return err.Error()
	}
	from, err := snapshot.Iter(nil, nil)
	for ; err == nil && from.Valid(); err = from.Next() {
		if string(from.Value()) != string(answer) {
			return fmt.Sprintf("%s = %s, %d = %s", from.Key(), from.Value(), first, answer)
		}
	}
	if err != nil {
		return err.Error()
	}
	return string(answer)
}

// prepareDoom starts a server with two regions and the doomed keys, their value old.
func prepareDoom(t *testing.T, version string) (*server, context.Context, *txnkv.Client) {
	t.Helper()
	s := start(t, version)
	ctx, c := testContext(t), s.openTxn()
	splitAt(t, ctx, c, numbered(doomedKeys/2))
	txn := begin(t, c)
	for _, key := range numberedTo(doomedKeys) {
		must(t, txn.Set(key, []byte("old")))
	}
	must(t, txn.Commit(ctx))
	untilNoLocks(t, ctx, c)
	return s, ctx, c
}

func TestTxnKilledClients(t *testing.T) {
	for _, version := range []string{"1", "2"} {
		for _, c := range []struct{ step, way, answer string }{
			{"prewritten", "optimistic", "old"},
			{"prewritten", "pessimistic", "old"},
			{"committed", "optimistic", "new"},
			{"committed", "pessimistic", "new"},
			{"committed", "optimistic+async", "new"},
			{"locked", "pessimistic", "old"},
		} {
			t.Run(fmt.Sprintf("api-version-%s/%s-%s", version, c.step, c.way), func(t *testing.T) {
				s, ctx, client := prepareDoom(t, version)
				doom(s, c.step, c.way).killAt(c.step)
				left := len(scanLocks(t, ctx, client))
				if left == 0 || left > doomedKeys {
					t.Fatalf("%d locks", left)
				}
				if answer := readers(s); answer != c.answer {
					t.Fatalf("readers find %s, wanted %s", answer, c.answer)
				}
				// What no reader has to resolve, a collection does.
				_, err := collect(ctx, client, timestamp(t, client))
				must(t, err)
				untilNoLocks(t, ctx, client)
				if answer := readers(s); answer != c.answer {
					t.Fatalf("readers find %s, wanted %s", answer, c.answer)
				}
			})
		}
	}
}

// Its locks are resolved while it stands still. When it goes on it must not commit any more.
func TestTxnLateClient(t *testing.T) {
	s, ctx, c := prepareDoom(t, "1")
	late := doom(s, "prewritten", "optimistic")
	if said := late.says(); said != "prewritten" {
		t.Fatalf("%q", said)
	}
	if _, err := collect(ctx, c, timestamp(t, c)); err != nil {
		t.Fatalf("%+v", err)
	}
	_, err := late.input.Write([]byte("\n"))
	must(t, err)
	if said := late.says(); !strings.Contains(said, "TxnLockNotFound") {
		t.Fatalf("%q", said)
	}
	if answer := readers(s); answer != "old" {
		t.Fatalf("readers find %s", answer)
	}
	untilNoLocks(t, ctx, c)
}

func TestTxnBankOfKilledClients(t *testing.T) {
	for _, version := range []string{"1", "2"} {
		t.Run("api-version-"+version, func(t *testing.T) {
			s := start(t, version)
			ctx, c := testContext(t), s.openTxn()
			openBank(t, ctx, c)
			var acknowledged []string
			for round := 0; round < 4; round++ {
				var clients []*doomed
				for _, way := range []string{"optimistic", "pessimistic", "optimistic+async", "pessimistic+async+1pc"} {
					clients = append(clients, doom(s, "transfers", way))
				}
				for i, client := range clients {
					for enough := 0; enough < 3+2*i+round; enough++ {
						acknowledged = append(acknowledged, client.says())
					}
				}
				for _, client := range clients {
					acknowledged = append(acknowledged, client.kill()...)
				}
				checkBank(t, ctx, c, timestamp(t, c), acknowledged)
			}
			_, err := collect(ctx, c, timestamp(t, c))
			must(t, err)
			untilNoLocks(t, ctx, c)
			checkBank(t, ctx, c, timestamp(t, c), acknowledged)
		})
	}
}

func TestTxnBankOfManyTellers(t *testing.T) {
	inEveryTxnMode(t, func(t *testing.T, ctx context.Context, c *txnkv.Client) {
		openBank(t, ctx, c)
		working, stop := context.WithCancel(ctx)
		defer stop()
		done := make(chan []string)
		tellers := 0
		for _, set := range ways() {
			tellers++
			go func(set func(*transaction.KVTxn), teller int) {
				var acknowledged []string
				random := rand.New(rand.NewSource(int64(teller)))
				for number := 0; working.Err() == nil; number++ {
					id := fmt.Sprintf("%d-%d", teller, number)
					if err := transfer(ctx, c, set, random, id); err == nil {
						acknowledged = append(acknowledged, id)
					}
				}
				done <- acknowledged
			}(set, tellers)
		}
		var past []uint64
		for i := 0; i < 100; i++ {
			at := timestamp(t, c)
			checkBank(t, ctx, c, at, nil)
			past = append(past, at)
		}
		stop()
		var acknowledged []string
		for ; tellers > 0; tellers-- {
			acknowledged = append(acknowledged, <-done...)
		}
		for _, at := range past {
			checkBank(t, ctx, c, at, nil)
		}
		if len(acknowledged) < 20 {
			t.Fatalf("%d transfers", len(acknowledged))
		}
		checkBank(t, ctx, c, timestamp(t, c), acknowledged)
		untilNoLocks(t, ctx, c)
	})
}

func TestTxnBankOverRestarts(t *testing.T) {
	s := start(t, "1")
	ctx, c := testContext(t), s.openTxn()
	openBank(t, ctx, c)
	var acknowledged []string
	for round := 0; round < 3; round++ {
		client := doom(s, "transfers", "optimistic+async")
		for enough := 0; enough < 10; enough++ {
			acknowledged = append(acknowledged, client.says())
		}
		s.kill()
		s.launch()
		acknowledged = append(acknowledged, client.kill()...)
		checkBank(t, ctx, c, timestamp(t, c), acknowledged)
	}
}
