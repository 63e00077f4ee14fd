package redis

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

var (
	// ErrAway: the server failed and has not been seen to answer since.
	ErrAway = errors.New("redis is away")
	// errSlow: no answer came in time. Whether the call was counted is not known.
	errSlow = errors.New("redis did not answer in time")
	// errBusy: more calls are waiting than can be answered in time.
	errBusy = errors.New("too many calls wait for redis")
	// errReply: the server answered something else than the script returns.
	errReply = errors.New("redis gave an answer that is none")
)

const (
	maxWorkers = 8    // connections that carry batches
	maxBatch   = 64   // calls in a batch
	maxQueue   = 1024 // calls that wait for a worker
	maxBacklog = 1 << 16

	// maxSilence is for how many times a request's wait nothing is answered in time before requests stop to wait.
	maxSilence = 5

	firstPause   = 5 * time.Millisecond // between two attempts to reach a server that is away
	longestPause = 250 * time.Millisecond

	// heartbeat is the longest time between two looks at a server: when it is idle it keeps a connection, and that it is away is known
	// before a request comes.
	heartbeat = 2 * time.Second
	goodbye   = 250 * time.Millisecond // for what is still to be said when a server is closed
)

// Server is one Redis, a cluster or what sentinels watch.
type Server struct {
	pool     *Pool
	id       [32]byte
	settings Settings
	name     string // for operators
	users    int    // guarded by pool.mu
	failures failures
	cause    atomic.Pointer[error] // why it is away
	said     said

	calls   sync.Pool
	queue   chan *call
	away    atomic.Bool
	prompt  atomic.Int64  // when something was last answered in time, as sinceBegin tells it
	wake    chan struct{} // for tend
	origin  time.Time
	begin   sync.Once
	begun   atomic.Bool
	ready   chan struct{} // closed when client is set
	client  goredis.UniversalClient
	ctx     context.Context
	cancel  context.CancelFunc
	warm    bool          // tend's: the server was prepared once
	stop    chan struct{} // closed: workers finish what they have
	working sync.WaitGroup
	tending sync.WaitGroup

	mu      sync.Mutex
	backlog []*call // that nobody waits for, until the server is there; up to maxBacklog
}

// call is a script to run. Between the queue and its end it belongs to a worker; see the states.
type call struct {
	script *script
	key    []byte
	args   []any
	reply  [4]int64
	err    error
	state  atomic.Uint32
	done   chan struct{} // one message for each call that somebody waits for to the end
	timer  *time.Timer
	// undo is run by the worker when the call may have had its effect and nobody waits any more.
	undo func()
	// posted: nobody waits; the call is kept until it has succeeded.
	posted bool
}

// A call is waiting until a worker claims it, then sent until that has the answer. Whoever waits may abandon it before that: then the
// worker drops it. Who comes second, worker or waiter, disposes of the call.
const (
	waiting = iota
	sent
	answered
	abandoned
)

func newServer(p *Pool, id [32]byte, s Settings) *Server {
	name := s.String()
	server := &Server{pool: p, id: id, settings: s, name: name, failures: p.watch.failures(p.plugin, name), queue: make(chan *call, maxQueue), wake: make(chan struct{}, 1),
		ready: make(chan struct{}), stop: make(chan struct{})}
	server.origin = time.Now()
	server.ctx, server.cancel = context.WithCancel(context.Background())
	server.calls.New = func() any {
		timer := time.NewTimer(time.Hour)
		timer.Stop()
		return &call{done: make(chan struct{}, 1), timer: timer}
	}
	return server
}

// Run begins to use the server, so that the first request need not wait for the connection. It is for phase.Env.Go.
func (s *Server) Run(<-chan struct{}) { s.start() }

func (s *Server) start() {
	s.begin.Do(func() {
		s.prompt.Store(s.sinceBegin())
		for range s.workers() {
			s.working.Go(s.work)
		}
		s.tending.Go(s.tend)
		s.begun.Store(true)
	})
}

// newCall returns a call of script, whose key is copied.
func (s *Server) newCall(script *script, key []byte, args ...any) *call {
	c, _ := s.calls.Get().(*call)
	c.script, c.err, c.undo = script, nil, nil
	c.key = append(c.key[:0], key...)
	c.args = append(c.args[:0], args...)
	return c
}

// do runs c and returns its answer. c is not to be used any more.
func (s *Server) do(c *call) (reply [4]int64, err error) {
	if !s.begun.Load() {
		s.start()
	}
	if s.away.Load() {
		s.calls.Put(c)
		s.failures[whileAway].Inc()
		return reply, ErrAway
	}
	c.state.Store(waiting)
	c.timer.Reset(s.pool.wait)
	select {
	case s.queue <- c:
	default:
		c.timer.Stop()
		s.calls.Put(c)
		s.failures[busy].Inc()
		return reply, errBusy
	}
	select {
	case <-c.done:
	case <-c.timer.C:
		if c.state.Swap(abandoned) != answered {
			if s.silent() { // else it is rather this machine that is busy
				s.trip(errSlow)
			}
			s.failures[slow].Inc()
			return reply, errSlow
		}
		<-c.done
	}
	c.timer.Stop()
	if reply, err = c.reply, c.err; err != nil {
		s.failures[broken].Inc()
	}
	s.calls.Put(c)
	return reply, err
}

// post runs c without anybody waiting, and as often as it takes: c can be run twice without harm.
func (s *Server) post(c *call) {
	c.posted = true
	c.state.Store(waiting)
	if !s.away.Load() {
		select {
		case s.queue <- c:
			return
		default:
		}
	}
	s.keep(c)
}

// keep remembers c, which nobody waits for, until the server is there. Beyond maxBacklog it is forgotten: keys end by themselves.
func (s *Server) keep(c *call) {
	s.mu.Lock()
	if len(s.backlog) < maxBacklog {
		s.backlog = append(s.backlog, c)
	}
	s.mu.Unlock()
	s.nudge()
}

// work sends what is in the queue, in batches.
func (s *Server) work() {
	<-s.ready
	batch := make([]*call, 0, maxBatch)
	for {
		select {
		case c := <-s.queue:
			batch = s.gather(append(batch[:0], c))
			s.send(batch)
			clear(batch)
		case <-s.stop:
			if len(s.queue) == 0 {
				return
			}
		}
	}
}

// gather takes along what is in the queue.
func (s *Server) gather(batch []*call) []*call {
	for len(batch) < maxBatch {
		select {
		case c := <-s.queue:
			batch = append(batch, c)
		default:
			return batch
		}
	}
	return batch
}

// send runs the calls of batch that are still waited for.
func (s *Server) send(batch []*call) {
	claimed := batch[:0]
	for _, c := range batch {
		if c.state.CompareAndSwap(waiting, sent) {
			claimed = append(claimed, c)
		} else {
			s.calls.Put(c)
		}
	}
	if len(claimed) == 0 {
		return
	}
	commands := make([]once, len(claimed))
	start := time.Now()
	s.exec(claimed, commands, nil)
	unknown := func(i int) bool { return goredis.HasErrorPrefix(commands[i].Err(), "NOSCRIPT") }
	for i := range claimed {
		if unknown(i) { // after a restart; none of these had an effect
			s.exec(claimed, commands, unknown)
			break
		}
	}
	if commands[0].Err() == nil && time.Since(start) <= s.pool.wait {
		s.prompt.Store(s.sinceBegin())
	}
	for i, c := range claimed {
		c.err = c.read(commands[i].Val(), commands[i].Err())
		if c.err != nil && !ofTheCall(c.err) {
			s.trip(c.err)
		}
		s.finish(c)
	}
}

// once is a command that is not repeated when the connection breaks.
type once struct{ *goredis.Cmd }

// NoRetry implements goredis.Cmder.
func (once) NoRetry() bool { return true }

// exec sends the calls as one batch: all by the names of their scripts, or those that which says with the texts. What becomes of each is
// in commands.
func (s *Server) exec(calls []*call, commands []once, which func(i int) bool) {
	pipe := s.client.Pipeline()
	for i, c := range calls {
		verb, program := "evalsha", c.script.sha
		if which != nil {
			if !which(i) {
				continue
			}
			verb, program = "eval", c.script.text
		}
		args := make([]any, 0, 4+len(c.args))
		args = append(append(args, verb, program, 1, c.key), c.args...)
		commands[i] = once{goredis.NewCmd(s.ctx, args...)}
		commands[i].SetFirstKeyPos(3)
		_ = pipe.Process(s.ctx, commands[i])
	}
	_, _ = pipe.Exec(s.ctx) // each command has its own error
}

// read takes the numbers out of an answer.
func (c *call) read(val any, err error) error {
	if err != nil {
		return err
	}
	list, ok := val.([]any)
	if !ok || len(list) > len(c.reply) {
		return errReply
	}
	c.reply = [4]int64{}
	for i, v := range list {
		if c.reply[i], ok = v.(int64); !ok {
			return errReply
		}
	}
	return nil
}

// ofTheCall tells errors that concern one key from those of the server.
func ofTheCall(err error) bool {
	return errors.Is(err, errReply) || goredis.HasErrorPrefix(err, "WRONGTYPE") ||
		goredis.HasErrorPrefix(err, "ERR") && !strings.Contains(err.Error(), "READONLY")
}

// finish gives the call back to who waits for it.
func (s *Server) finish(c *call) {
	if c.posted {
		if c.err != nil && !ofTheCall(c.err) {
			c.state.Store(waiting)
			s.keep(c)
		}
		return
	}
	undo := c.undo
	if c.state.Swap(answered) != abandoned {
		c.done <- struct{}{}
		return
	}
	s.calls.Put(c)
	if undo != nil {
		undo()
	}
}

// close ends everything. Nobody may use the server any more.
func (s *Server) close() {
	started := true
	s.begin.Do(func() { started = false }) // and never starts
	if !started {
		s.cancel()
		return
	}
	close(s.stop)
	worked := make(chan struct{})
	go func() {
		s.working.Wait()
		close(worked)
	}()
	select {
	case <-worked:
	case <-time.After(goodbye):
	}
	s.cancel()
	<-s.ready
	_ = s.client.Close() // breaks off what a worker still waits for
	<-worked
	s.tending.Wait()
}
