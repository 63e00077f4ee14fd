//go:build !race

package proxymirror

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

// The request pays for its copy in time, not in memory.
func TestAllocatesNothing(t *testing.T) {
	var task func()
	k := Kind(Options{Background: func(f func()) bool { task = f; return false }})
	var e phasetest.Env
	p := e.Build(t, k, `{"host":"http://127.0.0.1:1","path":"/m","path_concat_mode":"prefix"}`)
	chain := phase.NewChainOf([]phase.Instance{{Plugin: p}}, nil, e.Slots)
	x := phasetest.Exchange("GET /")
	settings, method, path, host := x.Settings(), []byte("POST"), []byte("/a"), []byte("h")
	body, name, value, panicked := make([]byte, 4000), []byte("X-A"), []byte("1"), func(r any) { panic(r) }
	run := func() {
		x.Reset()
		x.Begin(settings)
		q := &x.Request
		q.Method, q.Path, q.Query, q.Authority, q.Body = method, path, value, host, body
		q.Header.Add(name, value)
		x.Enter(nil, chain)
		x.Send()
		x.Send()
		x.Finish(panicked)
	}
	run()
	if n := testing.AllocsPerRun(200, run); n != 0 || task == nil {
		t.Errorf("%v allocations", n)
	}
}
