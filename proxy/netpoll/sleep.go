package netpoll

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Sleeper is told when its connection has something to read. Wake is called on the watcher's goroutine, which tells nobody else meanwhile.
type Sleeper interface{ Wake() }

// ends are the events of a client that leaves.
const ends = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR

// Watched says whether a watcher has p.
func (p *Presence) Watched() bool { return p.place > 0 }

// Sleep has s woken once, as soon as something can be read from c, be it its end or an error; at once when it can be read by now. Nobody
// needs to read from c until then. p is what Add has made the presence of the client of c; Remove takes the request back, but for a Wake
// that is under way. False says that s will not be woken: c is closed, or nobody watches it.
func (w *Watcher) Sleep(c *Conn, p *Presence, s Sleeper) bool {
	if w == nil || !p.Watched() {
		return false
	}
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	at := p.place - 1
	// Once, so that nothing is told twice; not edge-triggered, so that what has come before is told.
	if w.control(raw, unix.EPOLL_CTL_MOD, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLONESHOT, at, w.places[at].round) != nil {
		return false
	}
	p.sleeper, p.conn = s, raw
	return true
}

// rouse returns whom to wake, and has the kernel tell of the client's end again, also of one that has been. w.mu is held.
func (w *Watcher) rouse(p *Presence) (s Sleeper) {
	at := p.place - 1
	_ = w.control(p.conn, unix.EPOLL_CTL_MOD, unix.EPOLLRDHUP|unix.EPOLLET, at, w.places[at].round) // it fails only when c is closed
	s, p.sleeper, p.conn = p.sleeper, nil, nil
	return s
}
