package netpoll

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Presence tells whether a client is still there while nobody reads from its connection, and gets whoever waits for something on the
// client's behalf out of that. The zero value is a client that stays for ever.
//
// A client has left when it has ended its direction (FIN) or broken the connection (RST). One goroutine uses Await and Done; the rest may be
// called by any.
type Presence struct {
	left    atomic.Bool
	awaited atomic.Pointer[Conn]
	context atomic.Pointer[ending] // nil until somebody asks for it
	place   int                    // in the watcher's list, from 1; 0 = nobody watches

	// Whom to tell when its connection has something to read, nil for nobody, and that connection. The watcher's lock guards them.
	sleeper Sleeper
	conn    syscall.RawConn
}

// ending is a context and what ends it.
type ending struct {
	context.Context
	cancel context.CancelFunc
}

// Await says that from now on, until Done, somebody reads from c for the client. When the client leaves, or has left already, these reads
// are interrupted.
func (p *Presence) Await(c *Conn) {
	if p == nil {
		return
	}
	p.awaited.Store(c)
	if p.left.Load() {
		p.wake()
	}
}

// Done ends what Await has begun. False says that the client has left, and that c has been interrupted, or will be at any time: it is of no
// use to anybody else.
func (p *Presence) Done() bool {
	return p == nil || p.awaited.Swap(nil) != nil
}

// Context returns a context that is cancelled when the client leaves, for whoever waits for something else than a connection. It is made for
// the first who asks, so that clients for whom nobody ever has to wait cost nothing. That of a nil Presence is never done.
func (p *Presence) Context() context.Context {
	if p == nil {
		return context.Background()
	}
	e := p.context.Load()
	if e == nil {
		ctx, cancel := context.WithCancel(context.Background())
		e = &ending{ctx, cancel}
		if !p.context.CompareAndSwap(nil, e) {
			cancel()
			e = p.context.Load()
		}
	}
	if p.left.Load() { // Leave looks for a context after it has set left, so that one of the two sees the other
		e.cancel()
	}
	return e
}

// Left says that the client has left.
func (p *Presence) Left() bool { return p != nil && p.left.Load() }

// Leave notes that the client has left.
func (p *Presence) Leave() {
	p.left.Store(true)
	p.wake()
	if e := p.context.Load(); e != nil {
		e.cancel()
	}
}

func (p *Presence) wake() {
	if c := p.awaited.Swap(nil); c != nil {
		c.Interrupt()
	}
}

// Watcher notices clients that leave. It takes one goroutine and one descriptor for all of them, and nothing per request: a client is
// registered once, and the kernel tells only of its end.
type Watcher struct {
	epoll *os.File
	raw   syscall.RawConn // of epoll: within its calls the descriptor is not closed
	ended chan struct{}

	mu     sync.Mutex
	places []place // by Presence.place - 1
	free   []int
}

// place is where a client is found by what the kernel says of it. The round tells its users apart: what is said may be of the last one.
type place struct {
	of    *Presence
	round int32
}

// NewWatcher starts a watcher.
func NewWatcher() (*Watcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err = unix.SetNonblock(fd, true); err != nil { // so that Go's own poller takes it in
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	w := &Watcher{epoll: os.NewFile(uintptr(fd), "epoll"), ended: make(chan struct{})}
	if w.raw, err = w.epoll.SyscallConn(); err != nil {
		_ = w.epoll.Close()
		return nil, err
	}
	go w.run()
	return w, nil
}

// Close ends the watcher. Nobody that it has watched is noticed any more.
func (w *Watcher) Close() {
	if w == nil {
		return
	}
	_ = w.epoll.Close()
	<-w.ended
}

// Add makes p the presence of the client at the other end of c, until Remove. It does nothing for a c that is no socket.
func (w *Watcher) Add(c *Conn, p *Presence) {
	if w == nil {
		return
	}
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	at, round := w.enter(p)
	if w.control(raw, unix.EPOLL_CTL_ADD, unix.EPOLLRDHUP|unix.EPOLLET, at, round) != nil { // such a client is noticed when something is written to it
		w.leave(at)
		return
	}
	p.place = at + 1
}

// control has the kernel tell of events of c. Both descriptors are held meanwhile: their numbers could become somebody else's.
func (w *Watcher) control(c syscall.RawConn, op int, events uint32, at int, round int32) (err error) {
	event := unix.EpollEvent{Events: events, Fd: int32(at), Pad: round}
	var inner error
	outer := c.Control(func(fd uintptr) {
		inner = w.raw.Control(func(set uintptr) { err = unix.EpollCtl(int(set), op, int(fd), &event) })
	})
	return errors.Join(outer, inner, err)
}

// Remove ends what Add has begun. The connection is about to be closed, or already is: the kernel forgets it then.
func (w *Watcher) Remove(p *Presence) {
	if w == nil {
		return
	}
	if p.place > 0 {
		w.leave(p.place - 1)
		p.place = 0
	}
}

func (w *Watcher) enter(p *Presence) (at int, round int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.free); n > 0 {
		at, w.free = w.free[n-1], w.free[:n-1]
	} else {
		at = len(w.places)
		w.places = append(w.places, place{})
	}
	w.places[at].of = p
	return at, w.places[at].round
}

func (w *Watcher) leave(at int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.places[at].of; p != nil {
		p.sleeper, p.conn = nil, nil
	}
	w.places[at].of = nil
	w.places[at].round++
	w.free = append(w.free, at)
}

// run waits for the kernel. The descriptor of an epoll set can itself be waited for, so this takes no thread.
func (w *Watcher) run() {
	defer close(w.ended)
	var events [64]unix.EpollEvent
	var woken []Sleeper
	for {
		n := 0
		err := w.raw.Read(func(fd uintptr) bool {
			var err error
			n, err = unix.EpollWait(int(fd), events[:], 0)
			return n > 0 || err != nil && err != unix.EINTR
		})
		if err != nil || n < 0 {
			return
		}
		w.mu.Lock()
		for _, e := range events[:n] {
			p := w.places[e.Fd]
			switch {
			case p.of == nil || p.round != e.Pad:
			case p.of.sleeper != nil:
				woken = append(woken, w.rouse(p.of))
			case e.Events&ends != 0:
				p.of.Leave()
			}
		}
		w.mu.Unlock()
		for _, s := range woken {
			s.Wake()
		}
		clear(woken)
		woken = woken[:0]
	}
}
