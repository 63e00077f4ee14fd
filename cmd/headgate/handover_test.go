package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// upgradesEnv overrides how often TestFault15Upgrades replaces the program.
const upgradesEnv = "HEADGATE_UPGRADES"

var tookOver = regexp.MustCompile(`upgrade: process (\d+) has taken over`)

// latest returns the process that serves now, and how many have taken over so far.
func (c *child) latest() (pid, generation int) {
	pid = c.cmd.Process.Pid
	for _, m := range tookOver.FindAllStringSubmatch(c.stderr.String(), -1) {
		pid, _ = strconv.Atoi(m[1])
		generation++
	}
	return pid, generation
}

// upgrade replaces the program and waits until the next one serves.
func (c *child) upgrade() {
	c.t.Helper()
	pid, before := c.latest()
	if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
		c.t.Fatal(err)
	}
	eventually(c.t, "the next process to take over", func() bool {
		_, now := c.latest()
		return now > before
	})
}

// clients are what clients do while the program is replaced, and what went wrong.
type clients struct {
	addr string
	stop atomic.Bool
	done sync.WaitGroup

	answers, connected atomic.Int64
	mu                 sync.Mutex
	lost               []error
}

const quickRequest = "GET /quick HTTP/1.1\r\nHost: a\r\n\r\n"

// run asks again and again over connections that are used for up to n requests.
func (f *clients) run(n int) {
	f.done.Go(func() {
		for !f.stop.Load() {
			if err := f.connection(n); err != nil {
				f.mu.Lock()
				f.lost = append(f.lost, err)
				f.mu.Unlock()
			}
		}
	})
}

func (f *clients) connection(n int) error {
	nc, err := net.DialTimeout("tcp", f.addr, patience)
	if err != nil {
		return err
	}
	defer nc.Close()
	f.connected.Add(1)
	_ = nc.SetDeadline(time.Now().Add(patience))
	c := newWireConn(nc)
	for used, last := 0, time.Now(); used < n && !f.stop.Load(); used++ {
		idle := time.Since(last)
		res, body, err := c.exchange(quickRequest)
		if err != nil && used > 0 && idle > idleGrace/4 {
			return nil // this goroutine slept, and an idle connection may be closed
		}
		if err != nil || res.StatusCode != http.StatusOK || body != "quick\n" {
			return fmt.Errorf("request %d of a connection: %+v %q %w", used, res, body, err)
		}
		f.answers.Add(1)
		if last = time.Now(); res.Close {
			return nil
		}
	}
	return nil
}

// end stops the clients and reports what they lost.
func (f *clients) end(t *testing.T) {
	t.Helper()
	f.stop.Store(true)
	f.done.Wait()
	if len(f.lost) > 0 {
		t.Errorf("%d requests of %d were lost, the first: %v", len(f.lost), f.answers.Load(), f.lost[0])
	}
}

// TestFault15Upgrades: the program is replaced again and again while clients come, stay and stream. Nobody is reset, the store goes from hand
// to hand, and each process ends when its last answer has.
func TestFault15Upgrades(t *testing.T) {
	upgrades := 4
	if n, err := strconv.Atoi(os.Getenv(upgradesEnv)); err == nil {
		upgrades = n
	}
	slow, quick := newScripted(t), newUpstream(t, "quick", nil)
	dir := t.TempDir()
	config, file := childConfigText(t, dir, twoRoutes(slow.addr, quick.addr)), filepath.Join(dir, "patient.toml")
	// The stream lives as long as it takes to replace the program.
	writeFile(t, file, strings.Replace(config, `drain_timeout = "5s"`, `drain_timeout = "10m"`, 1))
	c := startChild(t, dir, "run", "-c", file)
	gateway, admin := c.addr("gateway"), c.addr("admin")
	streaming := dialWire(t, gateway)
	if _, err := io.WriteString(streaming, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	served := slow.next(t)
	served.send(t, sseHead+chunk("data: first\n\n"))

	load, begun := &clients{addr: gateway}, time.Now()
	for range 8 {
		load.run(1)
	}
	load.run(1 << 30)
	load.run(1 << 30)
	client := newClient(t)
	for i := range upgrades {
		before := load.answers.Load()
		c.upgrade()
		// Connections of the last one may still be open on the client's side.
		client.CloseIdleConnections()
		key, doc := fmt.Sprintf("r%d", i), fmt.Sprintf(`{"uri":"/added/%d","upstream":{"nodes":{%q:1}}}`, i, quick.addr)
		if put := send(t, client, "PUT", "http://"+admin+"/apisix/admin/routes/"+key, doc, "X-API-KEY: "+adminKey); put.status != 201 {
			t.Fatal(put)
		}
		for j := range i + 1 { // what was written to the processes before is in force
			if got := send(t, client, "GET", fmt.Sprintf("http://%s/added/%d", gateway, j), ""); got.status != 200 {
				t.Errorf("after upgrade %d: %v", i, got)
			}
		}
		eventually(t, "clients to be served", func() bool { return load.answers.Load() > before+20 })
	}
	load.end(t)
	took := time.Since(begun)
	served.send(t, chunk("data: last\n\n")+"0\r\n\r\n")
	if res, body, err := streaming.read(); err != nil || res.StatusCode != 200 || body != "data: first\n\ndata: last\n\n" {
		t.Errorf("the stream through the first process: %+v %q %v", res, body, err)
	}
	client.CloseIdleConnections()
	pid, _ := c.latest()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := c.wait(); status != 0 {
		t.Errorf("the first process ended with status %d", status)
	}
	if text := c.stderr.String(); strings.Contains(text, "cut off") || strings.Count(text, "has taken over") != upgrades {
		t.Error("not every process ended well")
	}
	t.Logf("F15: %d upgrades under %.0f new connections/s: %d connections, %d requests, %d lost, the stream through all of them whole",
		upgrades, float64(load.connected.Load())/took.Seconds(), load.connected.Load(), load.answers.Load(), len(load.lost))
}

// TestSessionsSurviveUpgrade: a client resumes its TLS session with the process that has taken over, and with the one after it. The keys with which
// that is done are neither in the environment of a process nor in its files nor in the log.
func TestSessionsSurviveUpgrade(t *testing.T) {
	cert, key, roots := ownPair(t, "gate.test")
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "cert.pem"), cert)
	writeFile(t, filepath.Join(dir, "key.pem"), key)
	c := startChild(t, dir, "run", "-c", childConfig(t, dir, "[gateway.tls]\nlisten = [\"127.0.0.1:0\"]\ncert_file = \"cert.pem\"\nkey_file = \"key.pem\"\n"))
	gateway, cache := c.addr("gateway, TLS"), tls.NewLRUClientSessionCache(8)
	resumes := func(version uint16) bool {
		t.Helper()
		nc, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", gateway, &tls.Config{
			RootCAs: roots, ServerName: "gate.test", ClientSessionCache: cache, MinVersion: version, MaxVersion: version,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_ = nc.SetDeadline(time.Now().Add(patience))
		if res, _, err := newWireConn(nc).exchange(quickRequest); err != nil || res.StatusCode != 404 { // the ticket is behind the handshake
			t.Fatal(res, err)
		}
		return nc.ConnectionState().DidResume
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		if resumes(version) || !resumes(version) {
			t.Errorf("%s: sessions are not resumed at all", tls.VersionName(version))
		}
		for range 2 {
			c.upgrade()
			if !resumes(version) {
				t.Errorf("%s: a session is not resumed with the new process", tls.VersionName(version))
			}
		}
		cache = tls.NewLRUClientSessionCache(8)
	}
	pid, _ := c.latest()
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(environ, []byte("tickets")) || strings.Contains(c.stderr.String(), "tickets") || strings.Contains(c.stderr.String(), "cannot resume") {
		t.Error("the keys of tickets show")
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.wait()
}

// TestUpgradeThatFails: a next version that does not come up changes nothing, whether it fails before or after it has had the store.
func TestUpgradeThatFails(t *testing.T) {
	quick := newUpstream(t, "quick", nil)
	dir := t.TempDir()
	file := childConfig(t, dir, "")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	c := startChild(t, dir, "run", "-c", file)
	gateway, admin, client := c.addr("gateway"), c.addr("admin"), newClient(t)
	put := func(id string) {
		t.Helper()
		// The store may still be on its way back.
		eventually(t, "the Admin API to write", func() bool {
			doc := fmt.Sprintf(`{"uri":"/%s","upstream":{"nodes":{%q:1}}}`, id, quick.addr)
			a := send(t, client, "PUT", "http://"+admin+"/apisix/admin/routes/"+id, doc, "X-API-KEY: "+adminKey)
			if a.status != 201 && a.status != 503 {
				t.Fatal(a)
			}
			return a.status == 201
		})
		eventually(t, "the route to serve", func() bool { return send(t, client, "GET", "http://"+gateway+"/"+id, "").status == 200 })
	}
	put("before")
	for i, wrong := range []string{
		"not TOML", // found before anything is opened
		strings.Replace(string(good), "[metrics]\nlisten = \"127.0.0.1:0\"", fmt.Sprintf("[metrics]\nlisten = %q", taken.Addr()), 1), // after the store
	} {
		writeFile(t, file, wrong)
		c.signal(syscall.SIGUSR2)
		eventually(t, "the upgrade to fail", func() bool {
			return strings.Count(c.stderr.String(), "upgrade: nothing was changed: the new process ended before it served (exit status 1)") > i
		})
		put(fmt.Sprintf("after%d", i))
	}
	writeFile(t, file, string(good))
	c.upgrade()
	client.CloseIdleConnections()
	put("at-last")
}

// What another process cannot have is not handed over, and the one that serves goes on.
func TestUpgradeWithoutStore(t *testing.T) {
	dir := t.TempDir()
	c := startChild(t, dir, "run", "-c", childConfig(t, dir, "[store]\nprovider = \"mem\"\n"))
	admin := c.addr("admin")
	c.signal(syscall.SIGUSR2)
	c.says("upgrade: nothing was changed: store.provider mem")
	if got := send(t, newClient(t), "GET", "http://"+admin+"/apisix/admin/routes", "", "X-API-KEY: "+adminKey); got.status != 200 {
		t.Error(got)
	}
}

// TestSupervised: sockets that a supervisor has opened are taken by their address, and it is told what becomes of the process.
func TestSupervised(t *testing.T) {
	dir := t.TempDir()
	opened, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := opened.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	hears := func(want string) {
		t.Helper()
		_ = told.SetReadDeadline(time.Now().Add(patience))
		text := make([]byte, 256)
		if n, err := told.Read(text); err != nil || string(text[:n]) != want {
			t.Errorf("the supervisor hears %q, %v, want %q", text[:n], err, want)
		}
	}
	file := childConfig(t, dir, "")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, strings.Replace(string(text), `listen = ["127.0.0.1:0"]`, fmt.Sprintf("listen = [%q]", opened.Addr()), 1))
	// The address is in use: only who has been given the socket can serve on it.
	c := startChildWith(t, dir, childOptions{
		env: []string{"NOTIFY_SOCKET=" + told.LocalAddr().String()}, sockets: []*os.File{f},
	}, "run", "-c", file)
	hears("READY=1")
	if got := c.addr("gateway"); got != opened.Addr().String() {
		t.Errorf("it listens on %s", got)
	}
	opened.Close()
	f.Close()
	client := newClient(t)
	if got := send(t, client, "GET", "http://"+c.addr("gateway")+"/", ""); got.status != 404 {
		t.Error(got)
	}
	client.CloseIdleConnections()
	c.upgrade()
	pid, _ := c.latest()
	hears(fmt.Sprintf("MAINPID=%d", pid))
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	hears("STOPPING=1")
	if status := c.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	if _, err := net.DialTimeout("tcp", opened.Addr().String(), time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("somebody listens still: %v", err)
	}
}
