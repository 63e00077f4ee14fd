//go:build !race

package limitreq

import (
	"testing"

	"headgate/proxy/phase/phasetest"
)

func TestAllocatesNothing(t *testing.T) {
	for _, conf := range []string{
		`{"rate":10,"burst":1,"key":"remote_addr"}`,
		`{"rate":1,"burst":0,"key":"$remote_addr $host","key_type":"var_combination","rejected_msg":"no"}`,
	} {
		r := newRig()
		p := r.build(t, "routes/1", conf)
		x := phasetest.Exchange("GET /")
		settings, client := x.Settings(), []byte("127.0.0.1")
		run := func() {
			x.Reset()
			x.Begin(settings)
			x.Client.Text = client
			r.now += 60_000_000
			p.Access(x)
		}
		run()
		if n := testing.AllocsPerRun(200, run); n != 0 {
			t.Errorf("%s: %v allocations", conf, n)
		}
	}
}
