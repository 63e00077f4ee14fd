package main

import (
	"context"
	"net"
	"sync"
	"testing"
)

// rawServer gives every connection to serve, each in a goroutine of its own, and closes it behind it. When the test ends the connections are
// closed, and serve has returned from all.
func rawServer(t testing.TB, serve func(c net.Conn)) (addr string) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	var conns sync.Map
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Store(c, nil)
			serving.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		conns.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
		serving.Wait()
	})
	return l.Addr().String()
}
