//go:build !race

package csrf

import "testing"

func TestExchangeAllocatesNothing(t *testing.T) {
	round := rounds(t)
	round()
	if n := testing.AllocsPerRun(200, func() { round() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
