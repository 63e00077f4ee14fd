package snapshot

import (
	"strings"
	"testing"

	"github.com/dlclark/regexp2/v2"

	"headgate/conf/resource"
	"headgate/proxy/phase"
)

// A path needs no certificate when one of the patterns says so, and only then: none says so when it takes too long.
func TestSkips(t *testing.T) {
	defer regexp2.StopTimeoutClock()
	ca := issue(t, nil, false, "ca.test").cert
	slow := `^/(?!b)(\w+\s?)*$`
	for _, tt := range []struct {
		patterns []string
		path     string
		want     bool
	}{
		{nil, "/free", false},
		{[]string{"^/free"}, "/free/a", true},
		{[]string{"^/free"}, "/a", false},
		{[]string{"^/free", "/(?=pub)"}, "/a/pub", true},
		{[]string{slow}, "/" + strings.Repeat("a", 64) + "!", false},
		{[]string{slow}, "/a a", true},
	} {
		a, err := newClientAuth(&resource.SSLClient{CA: ca, Depth: 1, SkipURIs: tt.patterns})
		if err != nil {
			t.Errorf("%q: %v", tt.patterns, err)
			continue
		}
		x := &phase.Exchange{}
		x.Request.Path = []byte(tt.path)
		if got := a.Skips(x); got != tt.want {
			t.Errorf("%q on %s: %v", tt.patterns, tt.path, got)
		}
	}
}
