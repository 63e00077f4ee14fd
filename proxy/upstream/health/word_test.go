package health

import (
	"fmt"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"headgate/balancer"
	"headgate/conf/resource"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func (w word) String() string {
	return fmt.Sprintf("%s %d/%d/%d/%d", w.status(), w.count(Success), w.count(HTTPFailure), w.count(TCPFailure), w.count(Timeout))
}

// TestReports replays sequences of reports: s success, h HTTP failure, t TCP failure, o timeout, i ignored. After each one stands the state
// with its counters success/http/tcp/timeout.
func TestReports(t *testing.T) {
	of := map[byte]Outcome{'s': Success, 'h': HTTPFailure, 't': TCPFailure, 'o': Timeout, 'i': Ignored}
	for _, c := range []struct {
		name   string
		limits [outcomes]int // Success, HTTPFailure, TCPFailure, Timeout from 1 on
		in     string
		want   string
	}{
		{"a full verdict is not confirmed", [outcomes]int{0, 2, 2, 2, 2}, "ss", "healthy 0/0/0/0, healthy 0/0/0/0"},
		{"the limit flips", [outcomes]int{0, 2, 3, 2, 2}, "hhh", "mostly_healthy 0/1/0/0, mostly_healthy 0/2/0/0, unhealthy 0/3/0/0"},
		{"down and up again", [outcomes]int{0, 2, 1, 2, 2}, "hss",
			"unhealthy 0/1/0/0, mostly_unhealthy 1/0/0/0, healthy 2/0/0/0"},
		{"a failure takes the successes away", [outcomes]int{0, 3, 1, 2, 2}, "hsshs",
			"unhealthy 0/1/0/0, mostly_unhealthy 1/0/0/0, mostly_unhealthy 2/0/0/0, unhealthy 0/1/0/0, mostly_unhealthy 1/0/0/0"},
		{"a success takes all failures away, and needs its limit", [outcomes]int{0, 2, 3, 3, 3}, "htoss",
			"mostly_healthy 0/1/0/0, mostly_healthy 0/1/1/0, mostly_healthy 0/1/1/1, mostly_healthy 1/0/0/0, healthy 2/0/0/0"},
		{"kinds are counted apart", [outcomes]int{0, 2, 3, 2, 2}, "htht",
			"mostly_healthy 0/1/0/0, mostly_healthy 0/1/1/0, mostly_healthy 0/2/1/0, unhealthy 0/2/2/0"},
		{"timeouts have their own limit", [outcomes]int{0, 2, 9, 9, 1}, "o", "unhealthy 0/0/0/1"},
		{"a full verdict is not confirmed when it is bad, either", [outcomes]int{0, 2, 1, 1, 1}, "hto", "unhealthy 0/1/0/0, unhealthy 0/1/0/0, unhealthy 0/1/0/0"},
		{"a failure on the way up that is below its limit", [outcomes]int{0, 3, 1, 2, 2}, "hst", "unhealthy 0/1/0/0, mostly_unhealthy 1/0/0/0, mostly_unhealthy 0/0/1/0"},
		{"0 switches a counter off", [outcomes]int{0, 2, 0, 1, 0}, "hot", "healthy 0/0/0/0, healthy 0/0/0/0, unhealthy 0/0/1/0"},
		{"successes that are off take no failures away", [outcomes]int{0, 0, 2, 2, 2}, "hsh", "mostly_healthy 0/1/0/0, mostly_healthy 0/1/0/0, unhealthy 0/2/0/0"},
		{"ignored", [outcomes]int{9, 2, 2, 2, 2}, "hi", "mostly_healthy 0/1/0/0, mostly_healthy 0/1/0/0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w word
			var got []string
			for i := range len(c.in) {
				w = w.report(of[c.in[i]], c.limits[of[c.in[i]]])
				got = append(got, w.String())
				if isDown := uint64(w)&balancer.Down != 0; isDown != (w.status() >= MostlyUnhealthy) {
					t.Errorf("%s: the pickers see down = %t", w, isDown)
				}
			}
			if s := strings.Join(got, ", "); s != c.want {
				t.Errorf("%s\n got %s\nwant %s", c.in, s, c.want)
			}
		})
	}
}

// TestReportsNeverOverflow: no counter runs over into its neighbour, whatever is reported with the highest limits.
func TestReportsNeverOverflow(t *testing.T) {
	for _, limit := range []int{1, 100, 254, 1000} {
		for _, first := range []Outcome{HTTPFailure, TCPFailure, Timeout} {
			var w word
			for range 400 {
				w = w.report(first, limit)
			}
			if n := w.count(first); n != min(limit, counterMask) || w.count(Success) != 0 {
				t.Errorf("limit %d: %s after 400 of %s", limit, w, first)
			}
			for o := Success; o < outcomes; o++ {
				if o != first && w.count(o) != 0 {
					t.Errorf("limit %d: %s after 400 of %s", limit, w, first)
				}
			}
		}
	}
}

func FuzzReports(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 0}, uint8(2), uint8(3))
	f.Fuzz(func(t *testing.T, reports []byte, good, bad uint8) {
		var w word
		for _, b := range reports {
			o, limit := Outcome(b%byte(outcomes)), int(bad)
			if o == Success {
				limit = int(good)
			}
			before := w
			w = w.report(o, limit)
			switch {
			case (o == Ignored || limit == 0) && w != before:
				t.Fatalf("%s became %s by what does not count", before, w)
			case w != before && o == Success && w&failures != 0, w != before && o != Success && w&successes != 0:
				t.Fatalf("%s became %s by %s", before, w, o)
			case before.status() < MostlyUnhealthy && w.status() >= MostlyUnhealthy && (o == Success || w.count(o) < limit):
				t.Fatalf("%s became %s by %s with limit %d", before, w, o, limit)
			case before.status() >= MostlyUnhealthy && w.status() < MostlyUnhealthy && (o != Success || w.count(o) < limit):
				t.Fatalf("%s became %s by %s with limit %d", before, w, o, limit)
			}
		}
	})
}

func TestClassify(t *testing.T) {
	r := newRules(&resource.Report{Statuses: []int{200, 302, 999, -1}}, &resource.Report{Statuses: []int{500, 200}})
	for status, want := range map[int]Outcome{200: Success, 302: Success, 201: Ignored, 500: HTTPFailure, 0: HTTPFailure, 999: Ignored, 9999: Ignored, -1: Ignored} {
		if got := r.classify(status); got != want {
			t.Errorf("%d counts as %s, want %s", status, got, want)
		}
	}
	off := newRules(nil, nil)
	if got := off.classify(200); got != Ignored {
		t.Errorf("200 counts as %s where nothing is watched", got)
	}
	if off.limits != [outcomes]int{} {
		t.Errorf("limits %v where nothing is watched", off.limits)
	}
}
