//go:build !race

package limitcount

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestAllocatesNothing(t *testing.T) {
	for _, conf := range []string{
		`{"count":9007199254740991,"time_window":60}`,
		`{"count":"${arg_n ?? 1000000}","time_window":60,"window_type":"sliding","key":"$http_x_user $host","key_type":"var_combination"}`,
		`{"rules":[{"count":1000000,"time_window":1,"key":"$http_x_user"},{"count":1000000,"time_window":60,"key":"$host"}]}`,
		`{"count":1,"time_window":60,"rejected_msg":"no"}`,
	} {
		r := newRig()
		p := r.build(t, "routes/1", conf)
		x := phasetest.Exchange("GET /")
		settings, client, host, name, user := x.Settings(), []byte("127.0.0.1"), []byte("gateway.test"), []byte("X-User"), []byte("jack")
		run := func() {
			x.Reset()
			x.Begin(settings)
			x.Client.Text, x.Request.Host = client, host
			x.Request.Header.Add(name, user)
			r.now += 300_000_000
			p.Access(x)
		}
		run()
		if n := testing.AllocsPerRun(200, run); n != 0 {
			t.Errorf("%s: %v allocations", conf, n)
		}
	}
}

func BenchmarkAccess(b *testing.B) {
	var e phasetest.Env
	p := e.Build(b, Kind(nil), `{"count":1000000000,"time_window":60}`).(phase.Accessor)
	x := phasetest.Exchange("GET /")
	settings, client := x.Settings(), []byte("127.0.0.1")
	b.ReportAllocs()
	for b.Loop() {
		x.Reset()
		x.Begin(settings)
		x.Client.Text = client
		p.Access(x)
	}
}
