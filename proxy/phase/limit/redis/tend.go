package redis

import (
	"context"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// trip declares the server away, because of cause, and has it looked after.
func (s *Server) trip(cause error) {
	s.lost(cause)
	s.nudge()
}

func (s *Server) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// sinceBegin is a monotonic time in nanoseconds.
func (s *Server) sinceBegin() int64 { return int64(time.Since(s.origin)) }

// silent says that nothing was answered in time lately.
func (s *Server) silent() bool { return s.sinceBegin()-s.prompt.Load() > maxSilence*int64(s.pool.wait) }

// tend finds out whether the server is there, at first, now and then, and whenever it is declared away, and sends what was put off.
func (s *Server) tend() {
	s.client = s.settings.client() // not where a request would have to wait for it
	close(s.ready)
	beat := time.NewTicker(max(min(heartbeat, s.settings.s.Idle/2), firstPause))
	defer beat.Stop()
	for {
		s.report()
		if !s.reach() || !s.flush() {
			return
		}
		s.report()
		select {
		case <-s.stop:
			return
		case <-s.wake:
		case <-beat.C:
		}
	}
}

// reach returns when the server answers in time; false says that it is being closed. While it does not, it is away.
func (s *Server) reach() bool {
	for pause := firstPause; ; {
		took, err := s.probe()
		if err == nil && took <= s.pool.wait {
			if !s.warm || s.away.Load() {
				s.prepare()
			}
			s.prompt.Store(s.sinceBegin())
			s.away.Store(false)
			return true
		}
		if err == nil && !s.away.Load() && !s.silent() {
			return true
		}
		if err == nil {
			s.lost(errSlow)
		} else {
			s.lost(err)
		}
		s.report()
		select {
		case <-s.stop:
			return false
		case <-time.After(pause):
		}
		if err != nil { // who answers slowly may answer in time the next moment
			pause = min(2*pause, longestPause)
		}
	}
}

// flush moves the backlog to the queue; false says that the server is being closed.
func (s *Server) flush() bool {
	s.mu.Lock()
	backlog := s.backlog
	s.backlog = nil
	s.mu.Unlock()
	for _, c := range backlog {
		select {
		case s.queue <- c:
		case <-s.stop:
			return false
		}
	}
	return true
}

// prepare opens the workers' connections and makes the scripts known, which a new server lacks and requests would wait for.
func (s *Server) prepare() {
	ctx, cancel := context.WithTimeout(s.ctx, longest)
	defer cancel()
	var opening sync.WaitGroup
	for range s.workers() {
		opening.Go(func() { _ = s.client.Ping(ctx).Err() }) // the next probe tells more
	}
	opening.Wait()
	for _, program := range s.pool.scripts.all() {
		_ = s.client.ScriptLoad(ctx, program.text).Err() // or it is sent when it is used
	}
	s.warm = true
}

// workers is the number of workers.
func (s *Server) workers() int { return max(min(maxWorkers, s.settings.s.MaxIdle), 1) }

// probe says how fast the server lets us write. The first question may have to wait for a connection.
func (s *Server) probe() (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(s.ctx, 2*min(s.settings.s.Wait+s.settings.s.Dial, longest))
	defer cancel()
	if took, err = s.ask(ctx); err != nil || took <= s.pool.wait {
		return took, err
	}
	return s.ask(ctx)
}

func (s *Server) ask(ctx context.Context) (took time.Duration, err error) {
	start := time.Now()
	if cluster, ok := s.client.(*goredis.ClusterClient); ok {
		err := cluster.ForEachMaster(ctx, func(ctx context.Context, node *goredis.Client) error { return node.Ping(ctx).Err() })
		if err != nil {
			return 0, err
		}
	}
	err = s.client.Eval(ctx, s.pool.scripts.probe.text, []string{s.pool.prefix + "probe"}).Err()
	return time.Since(start), err
}
