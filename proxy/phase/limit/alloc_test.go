//go:build !race

package limit

import (
	"testing"

	"headgate/proxy/phase/phasetest"
)

func TestAllocatesNothing(t *testing.T) {
	x := phasetest.Exchange("GET /")
	query, client, name, user := []byte("n=1000"), []byte("127.0.0.1"), []byte("X-User"), []byte("jack")
	k, err := NewKey("var_combination", "$http_x_user $remote_addr")
	if err != nil {
		t.Fatal(err)
	}
	n, err := NewNumber("$arg_n")
	if err != nil {
		t.Fatal(err)
	}
	windows, buckets, gauges := NewWindows(), NewBuckets(), NewGauges()
	id := IdentityOfGroup("a")
	now := second
	run := func() {
		x.Reset()
		x.Request.Query, x.Client.Text = query, client
		x.Request.Header.Add(name, user)
		now += second // every other time the window is a new one
		count, _ := n.Value(x, 1)
		for _, sliding := range []bool{false, true} {
			windows.Take(windows.Hash(x, &id, &k), Shape{count, 2 * second, sliding}, now)
		}
		buckets.Take(buckets.Hash(x, &id, &k), PerSecond(1, 1), now)
		g, _, _ := gauges.Enter(gauges.Hash(x, &id, &k), 1, now)
		g.Leave()
	}
	run()
	if n := testing.AllocsPerRun(200, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkWindow(b *testing.B) {
	windows := NewWindows()
	s, clock := Shape{Count: Largest, Window: second}, NewClock()
	b.Run("one key", func(b *testing.B) {
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				windows.Take(1, s, clock())
			}
		})
	})
	b.Run("new keys", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			windows.Take(keyOf(windows, i), s, clock())
		}
	})
}

func TestStableTakesNoMemory(t *testing.T) {
	conf := []byte(`{"count":1000000,"key":"remote_addr","rejected_code":429,"rules":[{"a":null}],"time_window":60}`)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := Stable(conf); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
