package proxy

import (
	"testing"

	"headgate/proxy/phase"
)

func TestAddCharset(t *testing.T) {
	for in, want := range map[string]string{
		"text/html": "text/html; charset=utf-8", "Text/Plain": "Text/Plain; charset=utf-8", "application/javascript": "application/javascript; charset=utf-8",
		"text/xml;a=b": "text/xml;a=b", "text/html ; a": "text/html ; a", "text/html;": "text/html;",
		"text/vnd.wap.wml": "text/vnd.wap.wml; charset=utf-8", "application/rss+xml": "application/rss+xml; charset=utf-8",
		"text/plain; charset=iso-8859-1": "text/plain; charset=iso-8859-1", "text/plain;a=b;CHARSET=x": "text/plain;a=b;CHARSET=x",
		"application/json": "application/json", "text/css": "text/css", "text/event-stream": "text/event-stream", "image/png": "image/png", "": "",
	} {
		x := &phase.Exchange{}
		x.Response.Header.Add([]byte("content-type"), []byte(in))
		addCharset(x)
		if got, _ := x.Response.Header.Get("Content-Type"); string(got) != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	x := &phase.Exchange{}
	addCharset(x)
	if x.Response.Header.Len() != 0 {
		t.Error("an answer without a type has one")
	}
}

func TestCharsetAllocs(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector allocates: nothing is counted")
		return
	}
	html, x := []byte("text/html"), &phase.Exchange{}
	x.Response.Header.Add([]byte("Content-Type"), html)
	once := func() {
		x.Reset()
		x.Response.Header.Set(nameContentType, html)
		addCharset(x)
	}
	once()
	if n := testing.AllocsPerRun(100, once); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
