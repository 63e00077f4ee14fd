package headerline_test

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/headerline"
	"headgate/proxy/phase/phasetest"
)

func TestTexts(t *testing.T) {
	got := headerline.Texts(map[string]any{
		"s": "$host", "i": json.Number("7"), "f": json.Number("0.10"), "e": json.Number("1e20"), "huge": json.Number("1e999"),
		"b": true, "n": nil, "l": []any{"x"},
	})
	if want := map[string]string{"s": "$host", "i": "7", "f": "0.1", "e": "1e+20"}; !maps.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestAnswer(t *testing.T) {
	a, err := headerline.NewAnswer(map[string]string{
		"X-A": "1", "x-b": "$arg_q-$host", "Content-Type": "text/x", "Content-Length": "7", "transfer-Encoding": "chunked", "upgrade": "$host",
	})
	if err != nil {
		t.Fatal(err)
	}
	x := phasetest.Exchange("GET /?q=a%0d%0aSet-Cookie:%20b%09%7f")
	x.Answer(200, phase.TypeText, nil)
	a.Set(x)
	got := strings.Join(phasetest.Lines(&x.Response.Header), "\n")
	if want := "Content-Type: text/x\nX-A: 1\nx-b: a%0D%0ASet-Cookie: b\t%7F-gateway.test"; got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestRefusals(t *testing.T) {
	for _, m := range []map[string]string{{"a b": "1"}, {"": "1"}, {"a": "x\ny"}, {"content-length": "x\x00"}, {"b": "1", "a\r": "$host"}} {
		if _, err := headerline.NewAnswer(m); !errors.Is(err, headerline.ErrLine) {
			t.Errorf("%q: %v", m, err)
		}
	}
	if _, err := headerline.NewValue("x\r"); !errors.Is(err, headerline.ErrValue) {
		t.Errorf("value: %v", err)
	}
}

func TestAllocations(t *testing.T) {
	a, err := headerline.NewAnswer(map[string]string{"X-A": "1", "X-B": "$arg_q-$host"})
	if err != nil {
		t.Fatal(err)
	}
	e := &phasetest.Env{}
	x, from := &phase.Exchange{}, phasetest.Exchange("GET /?q=a%0db")
	n := testing.AllocsPerRun(100, func() {
		phasetest.Refill(x, from, e)
		a.Set(x)
	})
	if n != 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}
