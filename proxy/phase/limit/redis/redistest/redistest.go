// Package redistest starts real Redis servers, sentinels and clusters for tests, on free ports of the loopback interface and with their
// files in temporary directories. They end with the test.
package redistest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

const (
	host = "127.0.0.1"
	// patience is how long a server may take to come up.
	patience = 30 * time.Second
)

// Server is a process of Redis.
type Server struct {
	Port    int
	TLSPort int // 0 without TLS
	t       testing.TB
	args    []string
	cmd     *exec.Cmd
	ended   chan struct{}
	output  bytes.Buffer
	client  *goredis.Client
}

// Start starts a server; more are further arguments of redis-server.
func Start(t testing.TB, more ...string) *Server {
	t.Helper()
	return begin(t, "redis-server", append([]string{"--port", strconv.Itoa(Port(t)), "--save", "", "--appendonly", "no"}, more...))
}

func begin(t testing.TB, program string, args []string) *Server {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is not installed: apt-get install redis-server redis-sentinel", program)
	}
	s := &Server{t: t, args: append([]string{path}, args...)}
	for i, a := range args {
		if a == "--port" {
			s.Port, _ = strconv.Atoi(args[i+1])
		}
	}
	s.args = append(s.args, "--dir", t.TempDir(), "--bind", host, "--daemonize", "no")
	s.client = goredis.NewClient(&goredis.Options{Addr: s.Addr(), Protocol: 2, MaxRetries: -1, DisableIdentity: true})
	t.Cleanup(func() {
		s.Kill()
		_ = s.client.Close()
	})
	s.Restart()
	return s
}

// Addr is "host:port".
func (s *Server) Addr() string { return net.JoinHostPort(host, strconv.Itoa(s.Port)) }

// Restart starts the server again after Kill, empty, and waits until it answers.
func (s *Server) Restart() {
	s.t.Helper()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.output.Reset()
	s.cmd.Stdout, s.cmd.Stderr = &s.output, &s.output
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	s.ended = ended
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait()
		close(ended)
	}(s.cmd)
	Eventually(s.t, func() bool {
		select {
		case <-ended:
			s.t.Fatalf("%s ended:\n%s", s.args[0], &s.output)
		default:
		}
		c, err := net.DialTimeout("tcp", s.Addr(), time.Second)
		if err != nil {
			return false
		}
		_ = c.Close()
		return true
	})
}

// Kill ends the server at once.
func (s *Server) Kill() { s.signal(syscall.SIGKILL); <-s.ended }

// Pause stops the server in the middle of whatever it does; connections stay.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	select {
	case <-s.ended: // its number may belong to somebody else
	default:
		_ = s.cmd.Process.Signal(sig)
	}
}

// Do runs a command and returns its answer as text.
func (s *Server) Do(args ...any) string {
	s.t.Helper()
	v, err := s.client.Do(context.Background(), args...).Result()
	if err != nil {
		s.t.Fatalf("%v: %v", args, err)
	}
	return fmt.Sprint(v)
}

// Try runs a command and returns its answer, or the error, as text.
func (s *Server) Try(args ...any) string {
	v, err := s.client.Do(context.Background(), args...).Result()
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(v)
}

// Eventually waits until ok.
func Eventually(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not come about in time")
		}
	}
}

// Port returns a port that nobody listens on. It is below those that the system gives away, so that nobody gets it by chance before it is
// used.
func Port(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := 12000 + rand.IntN(20000)
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}
