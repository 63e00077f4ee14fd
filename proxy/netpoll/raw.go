package netpoll

import (
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// raw reads and writes a socket without telling Go's scheduler. A socket that does not block keeps the kernel busy for microseconds.
// Giving up the processor around such a call, as package net does, costs more than it brings: on a busy machine the
// scheduler's monitor takes the processor away in the middle of the call and wakes another thread for it.
//
// Errors other than io.EOF and passed deadlines are *os.SyscallError.
type raw struct {
	conn   syscall.RawConn
	in     transfer
	out    transfer
	reader func(fd uintptr) bool
	writer func(fd uintptr) bool
}

// transfer is one Read or Write under way.
type transfer struct {
	p   []byte
	n   int
	err error
}

func newRaw(c syscall.RawConn) *raw {
	r := &raw{conn: c}
	r.reader, r.writer = r.tryRead, r.tryWrite // method values allocate: made once for all calls
	return r
}

func (r *raw) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return r.in.run(p, r.conn.Read, r.reader)
}

func (r *raw) write(p []byte) (int, error) { return r.out.run(p, r.conn.Write, r.writer) }

// run calls try until it is done, waiting in between for the socket to become ready, at most until the deadline.
func (t *transfer) run(p []byte, wait func(func(uintptr) bool) error, try func(uintptr) bool) (int, error) {
	*t = transfer{p: p}
	err := wait(try)
	if t.err != nil {
		err = t.err
	}
	t.p = nil
	return t.n, err
}

func (r *raw) tryRead(fd uintptr) bool {
	t := &r.in
	for {
		n, e := call(unix.SYS_READ, fd, t.p)
		switch e {
		case 0:
			if t.n = n; n == 0 {
				t.err = io.EOF
			}
			return true
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			t.err = os.NewSyscallError("read", e)
			return true
		}
	}
}

func (r *raw) tryWrite(fd uintptr) bool {
	t := &r.out
	for t.n < len(t.p) {
		n, e := call(unix.SYS_WRITE, fd, t.p[t.n:])
		switch e {
		case 0:
			t.n += n
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			t.err = os.NewSyscallError("write", e)
			return true
		}
	}
	return true
}

func call(trap, fd uintptr, p []byte) (int, syscall.Errno) {
	n, _, e := unix.RawSyscall(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return int(n), e
}
