//go:build !race

package cors

import "testing"

func TestExchangeAllocatesNothing(t *testing.T) {
	for _, conf := range []string{
		`{}`, `{"allow_origins":"http://a.test,http://b.test"}`, `{"allow_origins_by_regex":["^none","\\.test$"],"timing_allow_origins":"**"}`,
		`{"allow_origins":"**","allow_methods":"**","allow_headers":"**","allow_credential":true}`, `{"allow_origins_by_metadata":["k"]}`,
	} {
		round := rounds(t, conf, `{"allow_origins":{"k":"http://a.test"}}`)
		round()
		if n := testing.AllocsPerRun(200, func() { round() }); n != 0 || round().Response.Header.Len() < 3 {
			t.Errorf("%s: %v allocations, %d lines", conf, n, round().Response.Header.Len())
		}
	}
}
