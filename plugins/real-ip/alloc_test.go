//go:build !race

package realip

import "testing"

func TestRewriteAllocatesNothing(t *testing.T) {
	round := rounds(t)
	round()
	if n := testing.AllocsPerRun(200, func() { round() }); n != 0 || string(round().Client.Text) != "2001:db8::1" {
		t.Errorf("%v allocations, client %s", n, round().Client.Text)
	}
}
