package proxy

import (
	"context"
	"time"
)

const (
	drainPoll = 5 * time.Millisecond
	// cutWait is how long requests that were cut off get to notice it.
	cutWait = time.Second
)

// Leave begins the end of the service: Ready says so, and every answer from now on tells its client to go. Listeners may stay open.
func (s *Server) Leave() {
	if s.g.draining.Swap(true) {
		return
	}
	if s.goAway != nil {
		s.goAway()
	}
}

// Drain ends the service without losing a request (reliability F14): every answer from now on tells its client to go, connections that
// are idle may still bring one request each until grace has passed, and what runs then may finish until ctx ends. The listeners
// must be closed already. It returns how many connections were cut off in the middle of a request.
func (s *Server) Drain(ctx context.Context, grace time.Duration) int {
	s.Leave()
	quietFrom := time.Now().Add(grace)
	s.await(ctx, func() bool {
		return s.open.Load() == 0 || s.busy.Load() == 0 && !time.Now().Before(quietFrom)
	})
	cut := s.hangUp()
	end, cancel := context.WithTimeout(context.Background(), cutWait)
	defer cancel()
	s.await(end, func() bool { return s.open.Load() == 0 })
	cancel() // nothing is left that fasthttp could wait for but what did not notice
	_ = s.http.ShutdownWithContext(end)
	_ = s.lot.Close() // that listener may have come too late to be known there
	s.lot.users.Wait()
	s.watcher.Load().Close()
	s.g.settings.Memory.Stop()
	return cut
}

// await polls until done holds or ctx ends.
func (s *Server) await(ctx context.Context, done func() bool) {
	poll := time.NewTicker(drainPoll)
	defer poll.Stop()
	for !done() {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return
		}
	}
}

// hangUp closes every connection, those that come later included, and returns how many had a request under way.
func (s *Server) hangUp() (busy int) {
	var parked []*edgeConn
	defer func() {
		for _, c := range parked {
			s.closed(c)
		}
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.tls.gate.close()
	for c := range s.crowd.conns {
		if c.berth != nil {
			s.lot.take(c)
			parked = append(parked, c)
		}
		if c.busy.Load() {
			busy++
			c.abort() // the client must not take what it has got for all
			continue
		}
		_ = c.Conn.Close() // it may be lingering
	}
	return busy
}
