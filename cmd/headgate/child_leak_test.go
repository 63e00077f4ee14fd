package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// recorder is a test whose errors are expected.
type recorder struct {
	testing.TB
	said strings.Builder
}

func (r *recorder) Errorf(format string, args ...any) { fmt.Fprintf(&r.said, format+"\n", args...) }

// The check at the end of a child finds what is left in it.
func TestChildThatLeaks(t *testing.T) {
	slow := newScripted(t)
	dir := t.TempDir()
	c := startChild(t, dir, "run", "-c", childConfig(t, dir, fmt.Sprintf("[[routes]]\nid = \"slow\"\nuri = \"/slow\"\n[routes.upstream]\nnodes = { %q = 1 }\n", slow.addr)))
	gateway := c.addr("gateway")
	eventually(t, "a process without clients to hold nothing", func() bool { return c.left() == "" })
	idle := dialWire(t, gateway)
	busy := dialWire(t, gateway)
	if _, err := busy.Write([]byte("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	slow.next(t)
	for _, want := range []string{"connection of a client: 2, expected at most 0", "connection to another server: 1, expected at most 0", "1 connections to upstreams are in use", " from " + gateway + " to " + idle.LocalAddr().String()} {
		eventually(t, "the check to say "+want, func() bool { return strings.Contains(c.left(), want) })
	}
	busy.Close()
	eventually(t, "the client of the upstream to be gone", func() bool {
		left := c.left()
		return strings.Contains(left, "connection of a client: 1,") && !strings.Contains(left, "upstreams")
	})
	c.started.goroutines -= 1000
	if left := c.left(); !strings.Contains(left, " goroutines, ") {
		t.Errorf("a thousand goroutines more than after the start: %s", left)
	}
	c.started.goroutines += 1000

	r := &recorder{TB: t}
	c.t = r
	if c.settle(20*time.Millisecond) || !strings.Contains(r.said.String(), "its clients have gone, and this is left:\nconnection of a client: 1") {
		t.Errorf("the check says %q", &r.said)
	}
	c.t = t
	if !strings.Contains(c.stderr.String(), "\ngoroutine ") {
		t.Errorf("its stacks are not in what it said:\n%s", &c.stderr)
	}
}

// A child that does not end well fails its test.
func TestChildThatEndsBadly(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		end        func(c *child)
	}{
		{"by itself", "ended with status 1", func(c *child) { <-c.ended }},
		{"well", "", func(c *child) { c.addr("gateway") }},
		{"killed by the test", "", func(c *child) { c.addr("gateway"); c.kill() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			file := childConfig(t, dir, "")
			if tt.want != "" {
				writeFile(t, file, "no TOML")
			}
			c := startChild(t, dir, "run", "-c", file)
			r := &recorder{TB: t}
			c.t = r
			tt.end(c)
			if c.end(); (tt.want == "") != (r.said.Len() == 0) || !strings.Contains(r.said.String(), tt.want) {
				t.Errorf("the check says %q, want %q", &r.said, tt.want)
			}
			c.t = t
		})
	}
}
