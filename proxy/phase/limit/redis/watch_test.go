package redis

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"headgate/proxy/meter"
	"headgate/proxy/phase/limit"
	"headgate/proxy/phase/limit/redis/redistest"
)

// notes collects what an operator is told.
type notes struct {
	mu    sync.Mutex
	lines []string
}

func (n *notes) printf(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, fmt.Sprintf(format, args...))
}

func (n *notes) with(text string) (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.lines {
		if strings.Contains(l, text) {
			count++
		}
	}
	return count
}

func exposed(t *testing.T, m *meter.Registry) string {
	t.Helper()
	var b bytes.Buffer
	if err := m.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// One line when a Redis goes and one when it is back, however many requests there are; the state and the failures are metrics.
func TestWatch(t *testing.T) {
	r := redistest.Start(t)
	m, n := meter.New(""), &notes{}
	w := NewWatch(m, n.printf)
	p := NewPool("p:", patient) // so that a busy machine does not look like a Redis in trouble
	p.Watch("limit-count", w)
	s := p.Acquire(single(t, r, `,"redis_password":"canary","redis_ssl":true`))
	labels := fmt.Sprintf(`{plugin="limit-count",redis="redis 127.0.0.1:%d/0"`, r.Port)
	state := func(want string) func() bool {
		return func() bool { return strings.Contains(exposed(t, m), "headgate_redis_up"+labels+"} "+want+"\n") }
	}
	// It speaks no TLS.
	if _, err := s.Window([]byte("k"), limit.Shape{Count: 9, Window: second}); err == nil {
		t.Fatal("TLS, where there is none")
	}
	redistest.Eventually(t, state("0"))
	s.Release()
	if strings.Contains(exposed(t, m), "headgate_redis_up{") {
		t.Error("a server that nobody uses has a state")
	}
	n.lines = nil

	s = p.Acquire(single(t, r, ""))
	defer s.Release()
	redistest.Eventually(t, func() bool {
		_, err := s.Window([]byte("k"), limit.Shape{Count: 9, Window: second})
		return err == nil
	})
	redistest.Eventually(t, state("1"))
	for round := 1; round <= 2; round++ {
		r.Kill()
		redistest.Eventually(t, func() bool {
			_, err := s.Window([]byte("k"), limit.Shape{Count: 9, Window: second})
			return err != nil && n.with("is away: ") == round
		})
		redistest.Eventually(t, state("0"))
		for range 1000 {
			_, _ = s.Window([]byte("k"), limit.Shape{Count: 9, Window: second})
		}
		r.Restart()
		redistest.Eventually(t, state("1"))
		redistest.Eventually(t, func() bool { return n.with("answers again") == round })
	}
	n.mu.Lock()
	for i, l := range n.lines {
		want := fmt.Sprintf("limit-count: redis 127.0.0.1:%d/0 ", r.Port)
		if !strings.HasPrefix(l, want) || strings.Contains(l, "is away") != (i%2 == 0) {
			t.Errorf("line %d: %s", i, l)
		}
	}
	n.mu.Unlock()
	text := exposed(t, m)
	if !strings.Contains(text, "headgate_redis_failures_total"+labels+`,reason="away"} `) || strings.Contains(text, `reason="away"} 0`+"\n") {
		t.Errorf("no failures are counted:\n%s", text)
	}
	if strings.Contains(text, "canary") || n.with("canary") > 0 {
		t.Error("a password is shown")
	}
}
