package snapshot

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/route"
)

// exchange runs one exchange on the snapshot in force; finish ends it.
func (r *rig) exchange(path string) (finish func()) {
	r.t.Helper()
	s := r.live.Pin(0)
	x := &phase.Exchange{}
	x.Begin(&phase.Settings{})
	got, ok := s.Find(&route.Query{Host: []byte("h"), Path: []byte(path)}, nil, &x.Match)
	if !ok {
		r.t.Fatalf("no route for %s", path)
	}
	x.Response.Status = 200
	if got.Count != nil {
		got.Count.Inc(&phase.Exchange{})
	}
	return func() {
		x.Enter(nil, got.Chain)
		x.Finish(func(any) { r.t.Error("panic") })
		s.Unpin(0)
	}
}

// shown returns the values of http_status with a label, one series after the other, and of http_requests_total of a route.
func (r *rig) shown(label, id string) string {
	var b bytes.Buffer
	if err := r.met.Write(&b); err != nil {
		r.t.Fatal(err)
	}
	var status, branch string
	for line := range strings.Lines(b.String()) {
		value := strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:])
		switch {
		case strings.HasPrefix(line, `apisix_http_status{code="200",route="`+label+`"`):
			status += value
		case strings.HasPrefix(line, `apisix_http_requests_total{route="`+id+`"`):
			branch += value
		}
	}
	return status + "/" + branch
}

func counted(path, name string) string {
	return fmt.Sprintf(`{"uri":%q,"name":%q,"upstream":%s,"plugins":{"prometheus":{}}}`, path, name, up("1", ""))
}

func TestRemovedRoutesLoseTheirSeries(t *testing.T) {
	r := newRig(t)
	r.put("routes/1", counted("/1", ""), "routes/2", counted("/2", "two"), "routes/3", counted("/3", ""))
	for _, path := range []string{"/1", "/2", "/3"} {
		r.exchange(path)()
	}
	want := func(when, label, id, want string) {
		t.Helper()
		if got := r.shown(label, id); got != want {
			t.Errorf("%s: route %s shows %s, want %s", when, label, got, want)
		}
	}
	want("at first", "1", "1", "1/1")
	want("at first", "two", "2", "1/1")

	finish := r.exchange("/1")
	r.put("routes/1", "", "routes/2", "")
	finish()
	want("removed", "1", "1", "/")
	want("removed", "two", "2", "/")
	want("another removed", "3", "3", "1/1")

	r.put("routes/1", counted("/1", ""))
	want("made again", "1", "1", "/0")
	r.exchange("/1")()
	want("made again", "1", "1", "1/1")

	r.put("routes/3", counted("/3", "")) // an edit
	r.exchange("/3")()
	want("edited", "3", "3", "2/2")
}

func TestSeriesOfANameInUseStay(t *testing.T) {
	r := newRig(t)
	r.put("routes/1", counted("/1", "n"), "routes/2", counted("/2", "n"))
	r.exchange("/1")()
	r.exchange("/2")()
	r.put("routes/1", "")
	if a, b := r.shown("n", "1"), r.shown("n", "2"); a != "11/" || b != "11/1" {
		t.Errorf("one of two routes of a name removed: %s and %s", a, b)
	}
	// The name moves to a route that comes with the same change.
	r.put("routes/2", "", "routes/4", counted("/4", "n"))
	r.exchange("/4")()
	if got := r.shown("n", "4"); got != "111/1" {
		t.Errorf("the name moved: %s", got)
	}
	r.put("routes/4", "")
	if got := r.shown("n", "4"); got != "/" {
		t.Errorf("the last of a name removed: %s", got)
	}
}

func TestAnIDThatIsTheNameOfAnother(t *testing.T) {
	r := newRig(t)
	r.put("routes/1", counted("/1", ""), "routes/2", counted("/2", "1"))
	r.exchange("/2")()
	r.put("routes/1", "")
	if got := r.shown("1", "2"); got != "1/1" {
		t.Errorf("the id was removed, the name is in force: %s", got)
	}
	r.put("routes/1", counted("/1", ""))
	r.exchange("/1")()
	r.put("routes/2", "")
	if got := r.shown("1", "1"); got != "11/1" {
		t.Errorf("the name was removed, the id is in force: %s", got)
	}
}
