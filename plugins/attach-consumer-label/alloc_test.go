//go:build !race

package attachconsumerlabel

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestSendAllocatesNothing(t *testing.T) {
	var e phasetest.Env
	p := e.Build(t, Kind(), `{"headers":{"X-Plan":"$plan","X-Team":"$team"}}`).(phase.Sender)
	x := phasetest.Exchange("GET /")
	settings, labels := x.Settings(), map[string]string{"plan": "gold"}
	run := func() {
		x.Reset()
		x.Begin(settings)
		x.Consumer.Labels = labels
		p.Send(x)
	}
	run()
	if n := testing.AllocsPerRun(200, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
