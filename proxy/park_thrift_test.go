package proxy

import "testing"

// TestThrift: memory is given back when many more are parked than before, some time later, and not all the time.
func TestThrift(t *testing.T) {
	var h thrift
	looks := func(parked, sweeps int) (due int) {
		for range sweeps {
			before := h.left
			if h.look(parked); before > 0 && h.left == 0 {
				due++
			}
		}
		return due
	}
	for _, tt := range []struct{ parked, sweeps, due int }{
		{0, 100, 0}, {thriftGain - 1, 100, 0}, {thriftGain, thriftDelay, 0}, {thriftGain, 1, 1}, {thriftGain, 100, 0},
		{2 * thriftGain, thriftDelay + 1, 1}, {3 * thriftGain, thriftPause - 1, 0}, {3 * thriftGain, thriftDelay + 1, 1},
		{0, thriftPause, 0}, {thriftGain, thriftDelay + 1, 1},
	} {
		if due := looks(tt.parked, tt.sweeps); due != tt.due {
			t.Errorf("%d parked for %d sweeps: %d collections, want %d", tt.parked, tt.sweeps, due, tt.due)
		}
	}
}

// TestParkedByTheClock: nobody has to be asked to park.
func TestParkedByTheClock(t *testing.T) {
	r := newParkGate(t, defaults())
	c := r.answered(t, false, 1)[0]
	r.eventually("it is parked", func() bool { return r.inLot() == 1 })
	c.say(get).want("GET", 200, "ok")
}
