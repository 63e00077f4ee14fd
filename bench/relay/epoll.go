package relay

import (
	"errors"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
)

// maxFD bounds the descriptors that ServeEpoll can hold.
const maxFD = 1 << 16

var errTooMany = errors.New("too many connections")

// ServeEpoll is Serve with nothing of Go's scheduler in it: one thread, one
// epoll set, per message one read and one write. That is how nginx and HAProxy
// drive their sockets, so it is the lower of the two floors.
//
// It serves request and answer ping-pong only: the end of one direction ends
// both, and a peer whose socket buffer is full is cut off. It runs until the
// process ends; closing ln only stops new connections.
func ServeEpoll(ln net.Listener, upstream string) error {
	set, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	loop := &epollLoop{set: set}
	failed := make(chan error, 1)
	go func() { failed <- loop.run() }()
	for {
		client, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return <-failed
		}
		if err != nil {
			return err
		}
		if err := loop.add(client, upstream); err != nil {
			return err
		}
	}
}

type epollLoop struct {
	set   int
	peers [maxFD]atomic.Int32 // the other end's descriptor, by descriptor
}

// add dials the upstream and hands both connections to the loop. A client
// whose upstream can't be dialled is closed, which is no error of the relay.
func (l *epollLoop) add(client net.Conn, upstream string) error {
	server, err := net.Dial("tcp", upstream)
	if err != nil {
		return client.Close()
	}
	a, err := detach(client)
	if err != nil {
		return errors.Join(err, server.Close())
	}
	b, err := detach(server)
	if err != nil {
		return errors.Join(err, syscall.Close(a))
	}
	if a >= maxFD || b >= maxFD {
		return errors.Join(errTooMany, syscall.Close(a), syscall.Close(b))
	}
	l.peers[a].Store(int32(b))
	l.peers[b].Store(int32(a))
	for _, fd := range []int{a, b} {
		event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}
		if err := syscall.EpollCtl(l.set, syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
			return os.NewSyscallError("epoll_ctl", err)
		}
	}
	return nil
}

// detach takes a connection's socket out of the hands of Go's own poller.
func detach(c net.Conn) (int, error) {
	defer c.Close()
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		return 0, err
	}
	defer f.Close()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		return 0, os.NewSyscallError("dup", err)
	}
	syscall.CloseOnExec(fd)
	return fd, os.NewSyscallError("set non-blocking", syscall.SetNonblock(fd, true))
}

func (l *epollLoop) run() error {
	runtime.LockOSThread()
	events := make([]syscall.EpollEvent, 256)
	buf := make([]byte, bufferSize)
	for {
		n, err := syscall.EpollWait(l.set, events, -1)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("epoll_wait", err)
		}
		for _, e := range events[:n] {
			from := int(e.Fd)
			to := int(l.peers[from].Load())
			if to == 0 {
				continue // closed by an earlier event of this batch
			}
			n, err := syscall.Read(from, buf)
			if errors.Is(err, syscall.EAGAIN) {
				continue
			}
			if err == nil && n > 0 {
				if m, err := syscall.Write(to, buf[:n]); err == nil && m == n {
					continue
				}
			}
			l.peers[from].Store(0)
			l.peers[to].Store(0)
			_ = errors.Join(syscall.Close(from), syscall.Close(to)) // also takes them out of the epoll set
		}
	}
}
