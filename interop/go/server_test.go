// Package interop does with client-go what its documentation shows, and what breaks servers, against
// the release binary. One source is tested with two versions of the client: that of go.mod, and the
// newest, `go test -modfile=newest.mod`.
package interop

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/log"
	"github.com/tikv/client-go/v2/rawkv"
)

// startTimeout is far more than a start takes: a server that is slow to start is not what fails here.
const startTimeout = 60 * time.Second

func TestMain(m *testing.M) {
	logger, properties, err := log.InitLogger(&log.Config{Level: "error"})
	if err == nil {
		log.ReplaceGlobals(logger, properties)
	}
	if arguments := os.Getenv("DOOMED"); arguments != "" {
		if err := runDoomed(arguments); err != nil {
			fmt.Println(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// server is a running binary, on a folder that ends with the test.
type server struct {
	t          *testing.T
	folder     string
	apiVersion string
	addr       string
	command    *exec.Cmd
	log        *os.File
}

// start runs a server on an empty folder and a free port.
func start(t *testing.T, apiVersion string) *server {
	t.Helper()
	s := &server{t: t, folder: t.TempDir() + "/data", apiVersion: apiVersion, addr: "127.0.0.1:0"}
	var err error
	if s.log, err = os.Create(s.folder + ".log"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	s.launch()
	return s
}

// launch returns once the server has said that it can serve, on the address that it then keeps.
func (s *server) launch() {
	s.t.Helper()
	binary := os.Getenv("PONTOON")
	if binary == "" {
		s.t.Fatal("PONTOON names no binary: run ./x interop go")
	}
	arguments := []string{"start", "--listen", s.addr}
	if nodes := os.Getenv("PONTOON_NODES"); nodes != "" {
		// It remembers its ports in its folder.
		arguments = []string{"dev", "--listen", "127.0.0.1:0", "--nodes", nodes}
	}
	if config := os.Getenv("PONTOON_CONFIG"); config != "" {
		arguments = append(arguments, "--config", config)
	}
	arguments = append(arguments, "--data-dir", s.folder, "--api-version", s.apiVersion)
	s.command = exec.Command(binary, arguments...)
	s.command.Stderr = s.log
	// The server ends with the tests, however these end.
	s.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := s.command.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.command.Start(); err != nil {
		s.t.Fatal(err)
	}
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(out).ReadString('\n')
		line <- text
	}()
	select {
	case text := <-line:
		s.addr = listenAddress(text)
		if s.addr == "" {
			s.t.Fatalf("no ready line but %q; its log:\n%s", text, s.readLog())
		}
	case <-time.After(startTimeout):
		s.t.Fatalf("not ready after %s; its log:\n%s", startTimeout, s.readLog())
	}
}

// nodeCount of every server of this run.
func nodeCount(t *testing.T) int {
	t.Helper()
	nodes := os.Getenv("PONTOON_NODES")
	if nodes == "" {
		return 1
	}
	count, err := strconv.Atoi(nodes)
	must(t, err)
	return count
}

// listenAddress of the line `ready listen=... store=... cluster=...`, of several nodes that of the first.
func listenAddress(line string) string {
	fields := strings.Fields(line)
	if len(fields) == 0 || fields[0] != "ready" {
		return ""
	}
	for _, field := range fields {
		if strings.HasPrefix(field, "listen=") {
			first, _, _ := strings.Cut(strings.TrimPrefix(field, "listen="), ",")
			return first
		}
	}
	return ""
}

func (s *server) readLog() string {
	text, err := os.ReadFile(s.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// kill ends the server as a power switch would, were the kernel to survive it. Several nodes end in order.
func (s *server) kill() {
	if os.Getenv("PONTOON_NODES") != "" {
		_ = s.command.Process.Signal(syscall.SIGTERM)
	} else {
		_ = s.command.Process.Kill()
	}
	_ = s.command.Wait()
}

func (s *server) stop() {
	if s.command != nil && s.command.ProcessState == nil && s.command.Process != nil {
		s.kill()
	}
	_ = s.log.Close()
	if s.t.Failed() {
		s.t.Logf("the server's log:\n%s", s.readLog())
	}
}

// open a client in the mode of the server.
func (s *server) open() *rawkv.Client {
	s.t.Helper()
	var options []rawkv.ClientOpt
	switch s.apiVersion {
	case "1ttl":
		options = append(options, rawkv.WithAPIVersion(kvrpcpb.APIVersion_V1TTL))
	case "2":
		options = append(options,
			rawkv.WithAPIVersion(kvrpcpb.APIVersion_V2), rawkv.WithKeyspace("DEFAULT"))
	}
	client, err := rawkv.NewClientWithOpts(context.Background(), []string{s.addr}, options...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = client.Close() })
	return client
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// inEveryMode runs a test against a server of each API version.
func inEveryMode(t *testing.T, test func(t *testing.T, ctx context.Context, c *rawkv.Client)) {
	for _, version := range []string{"1", "1ttl", "2"} {
		t.Run("api-version-"+version, func(t *testing.T) {
			test(t, testContext(t), start(t, version).open())
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%+v", err)
	}
}

func numbered(i int) []byte { return []byte(fmt.Sprintf("key-%08d", i)) }
