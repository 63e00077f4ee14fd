//go:build !race

package redirect

import "testing"

func TestRewriteAllocates(t *testing.T) {
	for conf, want := range map[string]float64{
		`{"regex_uri":["^/none/(.*)/(.*)","/b/$2/$1"]}`:                         0,
		`{"http_to_https":false}`:                                               0,
		`{"http_to_https":true}`:                                                0,
		`{"uri":"/n$uri?h=$host","encode_uri":true,"append_query_string":true}`: 0,
		// Package regexp has no submatch call that takes the caller's memory; a prefix needs none.
		`{"regex_uri":["^/a/(.*)","/b/$1"]}`:    0,
		`{"regex_uri":["^/a/([^/]*)","/b/$1"]}`: 1,
	} {
		if n := testing.AllocsPerRun(200, rounds(t, conf)); n != want {
			t.Errorf("%s: %v allocations, want %v", conf, n, want)
		}
	}
}
