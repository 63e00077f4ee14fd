// Package etcdtest runs a real etcd for tests: one member on free loopback ports with a data directory of its own.
package etcdtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

const (
	// patience bounds the wait for a member to serve.
	patience = 20 * time.Second
	// starts is how often another process may take the ports between their choice and their use.
	starts = 3
)

// Options of Start. The zero value is a member without TLS.
type Options struct {
	// TLS makes clients speak TLS; Files.
	TLS *Files
	// Client is how the helper itself reaches a member with TLS.
	Client *tls.Config
	// Args are further flags of etcd.
	Args []string
}

// Files name the PEM files of a member with TLS.
type Files struct {
	Cert, Key string
	ClientCA  string // clients have to present a certificate signed by it; "" = they have not
}

// Server is a running etcd. It is killed when the test ends.
type Server struct {
	tb       testing.TB
	options  Options
	binary   string
	data     string
	scheme   string
	client   string // host:port
	peer     string
	mu       sync.Mutex
	cmd      *exec.Cmd
	output   *bytes.Buffer
	exited   chan struct{}
	userName string
	password string
}

// Start runs an etcd and waits until it serves. Without etcd on the machine the test fails and says what to install.
func Start(tb testing.TB, o Options) *Server {
	tb.Helper()
	binary, err := exec.LookPath("etcd")
	if err != nil {
		tb.Fatal("this test needs a real etcd, 3.4 or newer: apt-get install etcd-server")
	}
	s := &Server{tb: tb, options: o, binary: binary, data: tb.TempDir(), scheme: "http"}
	if o.TLS != nil {
		s.scheme = "https"
	}
	tb.Cleanup(s.Stop)
	for try := 1; ; try++ {
		s.client, s.peer = freeAddress(tb), freeAddress(tb)
		err := s.start()
		if err == nil {
			return s
		}
		s.Stop()
		if try == starts {
			tb.Fatal(err)
		}
		s.data = tb.TempDir()
	}
}

// freeAddress returns a loopback address on which nobody listens now.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start runs the process on the addresses and the directory that were chosen.
func (s *Server) start() error {
	peer := "http://" + s.peer
	args := []string{
		"--name", "test", "--data-dir", s.data, "--listen-client-urls", s.Endpoint(), "--advertise-client-urls", s.Endpoint(),
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "test=" + peer,
		"--heartbeat-interval", "10", "--election-timeout", "100", "--log-level", "warn", "--logger", "zap",
	}
	if t := s.options.TLS; t != nil {
		args = append(args, "--cert-file", t.Cert, "--key-file", t.Key)
		if t.ClientCA != "" {
			args = append(args, "--client-cert-auth", "--trusted-ca-file", t.ClientCA)
		}
	}
	cmd := exec.Command(s.binary, append(args, s.options.Args...)...)
	output := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also when the test binary dies of a panic
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	s.mu.Lock()
	s.cmd, s.output, s.exited = cmd, output, exited
	s.mu.Unlock()
	return s.serving(exited, output)
}

// serving waits until the member has a leader and answers.
func (s *Server) serving(exited <-chan struct{}, output *bytes.Buffer) error {
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if err = s.ask(); err == nil {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("etcd ended: %s", output)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return fmt.Errorf("etcd does not serve: %w", err)
}

// ask makes the member answer once. It looks for the listener first, because a client pauses after a connection that was refused.
func (s *Server) ask() error {
	conn, err := net.Dial("tcp", s.client)
	if err != nil {
		return err
	}
	_ = conn.Close()
	c, err := s.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, err = c.Get(ctx, "/")
	return err
}

func (s *Server) dial() (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: []string{s.Endpoint()}, TLS: s.options.Client, Username: s.userName, Password: s.password,
		DialTimeout: patience, Logger: zap.NewNop(),
	})
}

// Endpoint returns the client URL. It stays the same over Stop and Restart.
func (s *Server) Endpoint() string { return s.scheme + "://" + s.client }

// Client returns an ordinary client, for what others write. It is closed when the test ends.
func (s *Server) Client() *clientv3.Client {
	s.tb.Helper()
	c, err := s.dial()
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(func() { _ = c.Close() })
	return c
}

// EnableAuth creates the users root and user with the password, gives user everything below prefix, and turns authentication on.
func (s *Server) EnableAuth(user, password, prefix string) {
	s.tb.Helper()
	c := s.Client()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, do := range []func() error{
		func() error { _, err := c.RoleAdd(ctx, "root"); return err },
		func() error { _, err := c.UserAdd(ctx, "root", password); return err },
		func() error { _, err := c.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := c.RoleAdd(ctx, "gateway"); return err },
		func() error {
			_, err := c.RoleGrantPermission(ctx, "gateway", prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := c.UserAdd(ctx, user, password); return err },
		func() error { _, err := c.UserGrantRole(ctx, user, "gateway"); return err },
		func() error { _, err := c.AuthEnable(ctx); return err },
	} {
		if err := do(); err != nil {
			s.tb.Fatal(err)
		}
	}
	s.userName, s.password = "root", password
}

// Compact forgets the history before now and returns the present revision.
func (s *Server) Compact() int64 {
	s.tb.Helper()
	c := s.Client()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := c.Get(ctx, "/")
	if err == nil {
		_, err = c.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err != nil {
		s.tb.Fatal(err)
	}
	return r.Header.Revision
}

// Stop kills the process (SIGKILL), as a crash does. Doing it again does nothing.
func (s *Server) Stop() {
	s.mu.Lock()
	cmd, exited := s.cmd, s.exited
	s.cmd = nil
	s.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill()
		<-exited
	}
}

// Restart runs etcd again on the same addresses and data, and waits until it serves.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Stop()
	if err := s.start(); err != nil {
		s.tb.Fatal(err)
	}
}

// Reset is Restart with an empty data directory: everything is gone and revisions begin again.
func (s *Server) Reset() {
	s.tb.Helper()
	s.Stop()
	s.data = s.tb.TempDir()
	if err := s.start(); err != nil {
		s.tb.Fatal(err)
	}
}

// Pause stops the process without closing its connections (SIGSTOP), as a partition does: what is sent to it waits.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(signal syscall.Signal) {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		s.tb.Fatal("etcd is not running")
	}
	if err := s.cmd.Process.Signal(signal); err != nil {
		s.tb.Fatal(err)
	}
}
