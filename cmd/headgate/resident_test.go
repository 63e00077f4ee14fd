package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// residentEnv overrides how many connections TestResidentMemory opens of each kind.
const residentEnv = "HEADGATE_CONNECTIONS"

// Bounds of resident memory in bytes, several times what is measured: a buffer that stays where it should not is found, noise is not.
const (
	maxPerIdle   = 96 << 10
	maxPerStream = 192 << 10
)

// TestResidentMemory (reliability S25, section 4.1): what a connection that waits for its next request costs the gateway, plain and over TLS, and what
// a stream costs that carries events.
func TestResidentMemory(t *testing.T) {
	n := 1000
	if m, err := strconv.Atoi(os.Getenv(residentEnv)); err == nil && m > 0 {
		n = m
	}
	cert, key, roots := ownPair(t, "gate.test")
	for _, tt := range []struct {
		kind   string
		secure bool
		stream bool
		goal   int64 // what is waited for
		most   int64
	}{
		{"idle connection", false, false, 8 << 10, maxPerIdle},
		{"idle TLS connection", true, false, 16 << 10, maxPerIdle},
		{"event stream", false, true, 0, maxPerStream},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			up := newEndless(t)
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "cert.pem"), cert)
			writeFile(t, filepath.Join(dir, "key.pem"), key)
			file := childConfig(t, dir, twoRoutes(up, newUpstream(t, "quick", nil).addr)+
				"[gateway.tls]\nlisten = [\"127.0.0.1:0\"]\ncert_file = \"cert.pem\"\nkey_file = \"key.pem\"\n")
			v := &volume{child: startChild(t, dir, "run", "-c", file)}
			plain, secure := v.addr("gateway"), v.addr("gateway, TLS")
			open := func() (net.Conn, error) {
				nc, err := net.DialTimeout("tcp", plain, patience)
				if tt.secure {
					nc, err = tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", secure, &tls.Config{RootCAs: roots, ServerName: "gate.test"})
				}
				if err != nil {
					return nil, err
				}
				_ = nc.SetDeadline(time.Now().Add(patience))
				request := quickRequest
				if tt.stream {
					request = slowRequest
				}
				if _, err = io.WriteString(nc, request); err != nil {
					return nc, err
				}
				in := bufio.NewReaderSize(nc, 512)
				res, err := http.ReadResponse(in, nil)
				if err != nil || res.StatusCode != http.StatusOK {
					return nc, fmt.Errorf("%v %w", res, err)
				}
				if tt.stream {
					_, err = io.ReadFull(res.Body, make([]byte, len(firstEvent)))
				} else {
					_, err = io.Copy(io.Discard, res.Body)
				}
				return nc, err
			}
			conns := make([]net.Conn, 0, n)
			var mu sync.Mutex
			more := func(n int) {
				t.Helper()
				var all sync.WaitGroup
				for range 8 {
					all.Go(func() {
						for range n / 8 {
							c, err := open()
							if err != nil {
								t.Error(err)
							}
							if c != nil {
								mu.Lock()
								conns = append(conns, c)
								mu.Unlock()
							}
						}
					})
				}
				all.Wait()
				if t.Failed() {
					t.FailNow()
				}
			}
			defer func() {
				for _, c := range conns {
					_ = c.Close()
				}
			}()
			more(64) // what is there once
			before, _ := v.memory()
			more(n)
			after, _ := v.memory()
			if !tt.stream {
				after = v.settle(plain, before+int64(n)*tt.goal)
			}
			per := (after - before) / int64(n)
			if per > tt.most {
				t.Errorf("%d bytes for each %s", per, tt.kind)
			}
			t.Logf("%d of an %s: %.1f KiB each (resident; %.1f MiB without them)", n, tt.kind, float64(per)/1024, float64(before)/(1<<20))
		})
	}
}

// settle serves one client more, as any gateway does whose other connections are idle, until resident memory has come down to goal, or for as long
// as patience, and returns it.
func (v *volume) settle(addr string, goal int64) (now int64) {
	v.t.Helper()
	nc, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		v.t.Fatal(err)
	}
	defer nc.Close()
	in := bufio.NewReader(nc)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		for range 100 {
			_ = nc.SetDeadline(time.Now().Add(patience))
			if _, err = io.WriteString(nc, quickRequest); err != nil {
				v.t.Fatal(err)
			}
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				v.t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
		}
		if now, _ = v.memory(); now <= goal {
			break
		}
	}
	return now
}

const firstEvent = "data: first\n\n"

// newEndless is an upstream whose answers are streams that begin, and go on until nobody wants them.
func newEndless(t testing.TB) string {
	return rawServer(t, func(c net.Conn) {
		in := bufio.NewReaderSize(c, 512)
		for line := "."; strings.TrimSpace(line) != ""; {
			var err error
			if line, err = in.ReadString('\n'); err != nil {
				return
			}
		}
		_, _ = io.WriteString(c, sseHead+chunk(firstEvent))
		_, _ = in.ReadByte() // until the other end hangs up
	})
}
