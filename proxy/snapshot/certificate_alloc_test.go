//go:build !race

package snapshot

import "testing"

func TestCertificateAllocates(t *testing.T) {
	r, pair := newRig(t), issue(t, nil, false, "any.test")
	r.put("ssls/1", ssl(pair, "a.test *.b.test"))
	s := r.live.Current()
	for _, name := range []string{"a.test", "x.b.test", "nobody.test"} {
		key := []byte(name)
		if n := testing.AllocsPerRun(100, func() { s.Certificate(key) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
