// Package accesslog writes one line per request without ever making a request wait for the disk.
//
// A line is copied into one of a few double buffers; one goroutine writes them out. When both buffers of a shard are full the line
// is dropped and counted: losing a line is better than delaying a request. The lines of one shard keep their order; lines of
// different shards mix at the granularity of a flush.
package accesslog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Special values of the path given to Open.
const (
	Stdout = "stdout"
	Off    = "off"
)

// Defaults of Options.
const (
	DefaultBuffer = 64 << 10
	DefaultFlush  = 200 * time.Millisecond
	DefaultWait   = 5 * time.Second
)

const maxShards = 16

var (
	// ErrClosed is returned by Flush and Reopen after Close.
	ErrClosed = errors.New("access log is closed")
	// ErrStuck means that the log took no bytes within Options.Wait.
	ErrStuck = errors.New("access log does not accept data")
)

// Options of a Writer; the zero value means the defaults.
type Options struct {
	Buffer int           // bytes of each of the two buffers of a shard, and the longest line; default DefaultBuffer
	Flush  time.Duration // longest time that a line stays in memory while the log accepts data; default DefaultFlush
	Wait   time.Duration // bound of Flush, Reopen and Close; default DefaultWait
	Shards int           // default GOMAXPROCS; rounded up to a power of two, at most 16
	// Dropped is told how many lines were lost: no room, a write error, or closed. It runs on the request path, must not block
	// and must be safe for concurrent use. nil ignores losses.
	Dropped func(n int)
}

// Writer is one access log. All methods are safe for concurrent use.
type Writer struct {
	shards  []shard // power of two; none when the log is off
	dropped func(n int)
	wait    time.Duration
	wake    chan struct{} // a buffer is half full or waits for the disk
	control chan command
	done    chan struct{} // closed when the writing goroutine has ended

	closing   chan struct{}
	closeOnce sync.Once

	// Owned by the writing goroutine.
	sink  sink
	path  string // to open again; "" for what is not ours to open
	torn  bool   // the last write ended inside a line
	lost  error  // the first write error since the last command
	limit atomic.Pointer[deadliner]
}

// sink is where the bytes go.
type sink interface {
	io.Writer
	io.Closer
}

// deadliner is a sink that can be told to give up on a blocked write, e.g. a pipe.
type deadliner interface{ SetWriteDeadline(time.Time) error }

type command struct {
	reopen bool
	reply  chan error // buffered
}

// shard is a double buffer. mu is held for the copy of one line or the swap of two slices, never over IO.
type shard struct {
	mu     sync.Mutex
	active []byte // takes lines
	other  []byte // empty, or older than active and still to be written while busy
	busy   bool   // other belongs to the writing goroutine
	closed bool
	_      [64]byte // neighbours are locked by other cores
}

// Open returns the log at path: a file that is created with mode 0640 or appended to, Stdout, or Off. A log that is off takes lines
// and does nothing.
func Open(path string, opt Options) (*Writer, error) {
	switch path {
	case Off, "":
		return &Writer{}, nil
	case Stdout:
		return start(shared{os.Stdout}, "", opt), nil
	}
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	return start(f, path, opt), nil
}

func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("access log: %w", err)
	}
	return f, nil
}

// shared is a file that others use too: it is neither closed nor given deadlines.
type shared struct{ io.Writer }

func (shared) Close() error { return nil }

func start(s sink, path string, opt Options) *Writer {
	if opt.Buffer <= 0 {
		opt.Buffer = DefaultBuffer
	}
	if opt.Flush <= 0 {
		opt.Flush = DefaultFlush
	}
	if opt.Wait <= 0 {
		opt.Wait = DefaultWait
	}
	if opt.Shards <= 0 {
		opt.Shards = runtime.GOMAXPROCS(0)
	}
	if opt.Dropped == nil {
		opt.Dropped = func(int) {}
	}
	shards := 1
	for shards < opt.Shards && shards < maxShards {
		shards *= 2
	}
	w := &Writer{
		shards:  make([]shard, shards),
		dropped: opt.Dropped,
		wait:    opt.Wait,
		wake:    make(chan struct{}, 1),
		control: make(chan command),
		done:    make(chan struct{}),
		closing: make(chan struct{}),
		path:    path,
	}
	for i := range w.shards {
		w.shards[i].active = make([]byte, 0, opt.Buffer)
		w.shards[i].other = make([]byte, 0, opt.Buffer)
	}
	w.use(s)
	go w.run(opt.Flush)
	return w
}

// Enabled tells whether lines go anywhere, so that a caller can save the formatting.
func (w *Writer) Enabled() bool { return len(w.shards) > 0 }

// Write takes one line; a missing newline at its end is added. It never waits for the log: a line without room in the shard is
// dropped and counted. Any shard number is good; lines that shall keep their order need the same one. The line is copied.
func (w *Writer) Write(shard uint32, line []byte) {
	if len(w.shards) == 0 || len(line) == 0 {
		return
	}
	need := len(line)
	end := line[need-1] == '\n'
	if !end {
		need++
	}
	s := &w.shards[int(shard)&(len(w.shards)-1)]
	s.mu.Lock()
	full := len(s.active)+need > cap(s.active)
	if s.closed || full && (s.busy || need > cap(s.active)) {
		s.mu.Unlock()
		w.dropped(1)
		return
	}
	if full {
		s.swap()
	}
	before := len(s.active)
	s.active = append(s.active, line...)
	if !end {
		s.active = append(s.active, '\n')
	}
	half := cap(s.active) / 2
	wake := full || before < half && len(s.active) >= half
	s.mu.Unlock()
	if wake {
		select {
		case w.wake <- struct{}{}:
		default: // the goroutine has yet to look, and will see this line too
		}
	}
}

// swap hands the filled buffer to the writing goroutine. mu is held and busy is false.
func (s *shard) swap() {
	s.active, s.other = s.other[:0], s.active
	s.busy = true
}

// Flush returns when every line accepted before the call is in the log, or with the first write error since the last Flush or Reopen,
// ErrStuck or ErrClosed.
func (w *Writer) Flush() error { return w.command(command{}) }

// Reopen writes what was accepted to the old file and continues with a new one at the same path, as log rotation wants. When the
// new file cannot be opened the old one stays in use and the error is returned. Stdout and Off are left as they are.
func (w *Writer) Reopen() error { return w.command(command{reopen: true}) }

func (w *Writer) command(c command) error {
	if len(w.shards) == 0 {
		return nil
	}
	c.reply = make(chan error, 1)
	timer := time.NewTimer(w.wait)
	defer timer.Stop()
	select {
	case w.control <- c:
	case <-w.closing:
		return ErrClosed
	case <-timer.C:
		return ErrStuck
	}
	select {
	case err := <-c.reply:
		return err
	case <-timer.C:
		return ErrStuck
	}
}

// Close refuses further lines, writes what was accepted and closes the file. It waits at most Options.Wait: then lines that a stuck
// log did not take are counted as dropped and ErrStuck is returned. A second call waits for the first.
func (w *Writer) Close() error {
	if len(w.shards) == 0 {
		return nil
	}
	w.closeOnce.Do(func() {
		for i := range w.shards {
			s := &w.shards[i]
			s.mu.Lock()
			s.closed = true
			s.mu.Unlock()
		}
		close(w.closing)
	})
	timer := time.NewTimer(w.wait)
	defer timer.Stop()
	select {
	case <-w.done:
		return nil
	case <-timer.C:
	}
	// Only a log that knows deadlines can be torn from its write; else the goroutine ends when the kernel lets it go.
	if d := w.limit.Load(); d != nil && (*d).SetWriteDeadline(time.Now()) == nil {
		<-w.done
	}
	return ErrStuck
}

func (w *Writer) run(flush time.Duration) {
	defer close(w.done)
	ticker := time.NewTicker(flush)
	defer ticker.Stop()
	for {
		select {
		case <-w.wake:
			w.drain()
		case <-ticker.C:
			w.drain()
		case c := <-w.control:
			w.drain()
			err := w.lost
			w.lost = nil
			if c.reopen {
				err = errors.Join(err, w.reopen())
			}
			c.reply <- err
		case <-w.closing:
			w.drain()
			w.sink.Close()
			return
		}
	}
}

// drain writes everything that was accepted before the call.
func (w *Writer) drain() {
	for i := range w.shards {
		s := &w.shards[i]
		// Two rounds: a full buffer that waits, then the lines that came after it.
		for range 2 {
			s.mu.Lock()
			waited := s.busy
			if !waited {
				if len(s.active) == 0 {
					s.mu.Unlock()
					break
				}
				s.swap()
			}
			full := s.other
			s.mu.Unlock()
			w.write(full)
			s.mu.Lock()
			s.busy = false
			s.mu.Unlock()
			if !waited {
				break
			}
		}
	}
}

// write puts whole lines into the sink with one call. What an error leaves unwritten is lost: trying again would hold up the
// lines that come after it.
func (w *Writer) write(p []byte) {
	if w.torn {
		// A line that an error cut short must not run into the next one.
		if _, err := w.sink.Write([]byte{'\n'}); err != nil {
			w.lose(p, err)
			return
		}
		w.torn = false
	}
	n, err := w.sink.Write(p)
	n = min(max(n, 0), len(p))
	if n == len(p) {
		return
	}
	if err == nil {
		err = io.ErrShortWrite
	}
	if n > 0 {
		w.torn = p[n-1] != '\n'
	}
	w.lose(p[n:], err)
}

// lose counts the lines that end in rest, the one that it begins inside of included.
func (w *Writer) lose(rest []byte, err error) {
	if w.lost == nil {
		w.lost = fmt.Errorf("access log: %w", err)
	}
	w.dropped(bytes.Count(rest, []byte{'\n'}))
}

func (w *Writer) reopen() error {
	if w.path == "" {
		return nil
	}
	f, err := openFile(w.path)
	if err != nil {
		return err
	}
	w.sink.Close()
	w.use(f)
	w.torn = false
	return nil
}

func (w *Writer) use(s sink) {
	w.sink = s
	w.limit.Store(nil)
	if d, ok := s.(deadliner); ok {
		w.limit.Store(&d)
	}
}
