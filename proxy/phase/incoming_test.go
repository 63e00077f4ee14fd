package phase

import (
	"bytes"
	"io"
	"testing"

	"headgate/proxy/fault"
)

// slowBody is a body that arrives in pieces.
type slowBody struct {
	rest      []byte
	size      int64
	step      int
	end       error // instead of io.EOF
	late      bool  // the end comes after the last bytes, not with them
	asked     int   // for the invitation
	held      int   // calls of Hold
	interrupt bool
	trailers  []byte
}

func (b *slowBody) Announced() int64 { return b.size }
func (b *slowBody) Limit(int64)      {}
func (b *slowBody) Invite() error    { b.asked++; return nil }
func (b *slowBody) Trailers() []byte { return b.trailers }
func (b *slowBody) Hold() error      { b.held++; return nil }
func (b *slowBody) Interrupt()       { b.interrupt = true }

func (b *slowBody) Read(p []byte) (n int, err error) {
	n = copy(p[:min(len(p), b.step)], b.rest)
	if b.rest = b.rest[n:]; len(b.rest) == 0 && (!b.late || n == 0) {
		if err = b.end; err == nil {
			err = io.EOF
		}
	}
	return n, err
}

func TestTryHold(t *testing.T) {
	text := bytes.Repeat([]byte("0123456789"), 20_000)
	for _, tt := range []struct {
		n, limit  int
		announced bool
		whole     bool
	}{
		{0, 0, false, true}, {10, 10, true, true}, {10, 10, false, true}, {11, 10, true, false}, {11, 10, false, false},
		{100_000, 100_000, true, true}, {100_000, 100_000, false, true}, {100_001, 100_000, false, false}, {200_000, 1 << 20, true, true},
	} {
		for _, late := range []bool{false, true} {
			for _, step := range []int{3, 10_000, 1 << 20} {
				x := &Exchange{}
				x.Begin(&Settings{})
				in := &slowBody{rest: text[:tt.n], size: -1, step: step, late: late}
				if tt.announced {
					in.size = int64(tt.n)
				}
				x.Request.Incoming = in
				if got := x.TryHold(tt.limit); got != tt.whole {
					t.Fatalf("%+v: whole %t", tt, got)
				}
				q := &x.Request
				if tt.whole && (q.Incoming != nil || q.BodySize() != int64(tt.n)) {
					t.Fatalf("%+v: Incoming %v, %d bytes", tt, q.Incoming, len(q.Body))
				}
				if !tt.whole && (q.Incoming == nil && len(q.Body) <= tt.limit || q.Broken != nil || tt.announced && len(q.Body) > 0) {
					t.Fatalf("%+v: Incoming %v, broken %v, %d bytes", tt, q.Incoming, q.Broken, len(q.Body))
				}
				if q.Incoming != nil && !x.TryHold(1<<20) { // from where it was
					t.Fatalf("%+v: it cannot be had", tt)
				}
				if !bytes.Equal(q.Body, text[:tt.n]) || cap(q.Body) > 2*tt.n+firstHold {
					t.Fatalf("%+v: %d bytes in %d", tt, len(q.Body), cap(q.Body))
				}
				if (in.held > 0) != (tt.n > maxKept) {
					t.Errorf("%+v: Hold was called %d times", tt, in.held)
				}
			}
		}
	}
}

func TestHoldBodyAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		in     *slowBody
		status int
	}{
		"too long":  {&slowBody{rest: make([]byte, 100), size: -1, step: 100}, 413},
		"announced": {&slowBody{size: 11}, 413},
		"broken":    {&slowBody{rest: []byte("abc"), size: 10, step: 3, end: fault.RequestTimeout}, 408},
		"nonsense":  {&slowBody{rest: []byte("abc"), size: 10, step: 3, end: io.ErrClosedPipe}, 400},
	} {
		x := &Exchange{}
		x.Begin(&Settings{MaxHeldBody: 10})
		x.Request.Incoming = tt.in
		for range 2 {
			if x.HoldBody() || x.Response.Status != tt.status {
				t.Errorf("%s: %d", name, x.Response.Status)
			}
		}
	}
}

// TestBodyVariables: what is asked of a body that is still on its way is waited for, unless it is too long.
func TestBodyVariables(t *testing.T) {
	for limit, want := range map[int]string{100: "b", 5: ""} {
		x := &Exchange{}
		x.Begin(&Settings{MaxHeldBody: limit})
		x.Request.ContentType = []byte("application/x-www-form-urlencoded")
		x.Request.Incoming = &slowBody{rest: []byte("a=b&c=d"), size: -1, step: 2}
		if got, _ := x.PostArg(".a", nil); string(got) != want {
			t.Errorf("limit %d: %q, want %q", limit, got, want)
		}
	}
}

func TestAllocTryHold(t *testing.T) {
	x := &Exchange{}
	settings := &Settings{}
	in := &slowBody{}
	text := make([]byte, 20_000)
	if n := testing.AllocsPerRun(100, func() {
		x.Begin(settings)
		*in = slowBody{rest: text, size: -1, step: 1000}
		if x.Request.Incoming = in; !x.TryHold(maxKept) {
			t.Fatal("not whole")
		}
		x.Reset()
	}); n != 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}
