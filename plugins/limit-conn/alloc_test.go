//go:build !race

package limitconn

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestAllocatesNothing(t *testing.T) {
	for _, conf := range []string{
		`{"conn":1,"burst":1,"default_conn_delay":0.1,"key":"remote_addr"}`,
		`{"default_conn_delay":0.1,"rules":[{"conn":"${arg_n ?? 5}","burst":1,"key":"$remote_addr"},{"conn":1,"burst":1,"key":"$remote_addr-"}]}`,
	} {
		g := newRig().build(t, "routes/1", conf)
		chain := phase.NewChainOf([]phase.Instance{{Plugin: g.p}}, nil, g.e.Slots)
		x := phasetest.Exchange("GET /")
		settings, client, panicked := x.Settings(), []byte("127.0.0.1"), func(r any) { panic(r) }
		run := func() {
			x.Reset()
			x.Begin(settings)
			x.Client.Text = client
			x.Enter(nil, chain)
			x.Access()
			x.Finish(panicked)
		}
		run()
		if n := testing.AllocsPerRun(200, run); n != 0 {
			t.Errorf("%s: %v allocations", conf, n)
		}
	}
}
