package proxycache

import (
	"bytes"
	"testing"
	"time"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

// FuzzKey: two requests have one key when all that the key is made of is the same, and only then.
func FuzzKey(f *testing.F) {
	f.Add("1", "jack", "x", "/a", "/a", "b=1", "h", "1", "jack", "x", "/a", "/a", "b=1", "h")
	f.Add("1", "", "", "/a?b", "/a%3Fb", "", "", "1", "", "", "/a", "/a", "b", "")
	f.Add("1", "", "", "/a/b", "/a%2Fb", "", "", "1", "", "", "/a/b", "/a/b", "", "")
	f.Add("12", "a", "bc", "/", "/", "", "", "1", "2a", "bc", "/", "/", "", "")
	f.Add("1", "a", "\x04\x05", "/", "/", "", "x", "1", "a\x02", "", "/", "/", "", "\x05")
	f.Fuzz(func(t *testing.T, r1, c1, a1, p1, raw1, q1, h1, r2, c2, a2, p2, raw2, q2, h2 string) {
		p := &plugin{config: config{isolate: true, key: []keyPart{parsePart("$request_uri"), parsePart("text"), parsePart("$http_x"), parsePart("$none")}}}
		key := func(route, consumer, authorization, path, raw, query, header string) []byte {
			x := &phase.Exchange{Route: &phase.Route{ID: route}}
			x.Consumer.Name = consumer
			x.Request.Path, x.Request.RawPath = []byte(path), []byte(raw)
			if query != "" {
				x.Request.Query = []byte(query)
			}
			if authorization != "" {
				x.Request.Header.Add([]byte("Authorization"), []byte(authorization))
			}
			if header != "" {
				x.Request.Header.Add([]byte("X"), []byte(header))
			}
			return p.appendKey(nil, x, nil)
		}
		if c1 == "" {
			a1 = ""
		}
		if c2 == "" {
			a2 = ""
		}
		same := r1 == r2 && c1 == c2 && a1 == a2 && p1 == p2 && raw1 == raw2 && q1 == q2 && h1 == h2
		// A raw path that is the canonical one and one that is not there are the same thing; no request lacks it.
		if raw1 == "" || raw2 == "" {
			return
		}
		one, two := key(r1, c1, a1, p1, raw1, q1, h1), key(r2, c2, a2, p2, raw2, q2, h2)
		if bytes.Equal(one, two) != same {
			t.Errorf("same is %v:\n%q\n%q", same, one, two)
		}
	})
}

// FuzzFile: no file makes the reader fail, and what it understands is what would be written again.
func FuzzFile(f *testing.F) {
	e := &entry{status: 200, size: 3, lifetime: time.Hour, received: 1e18, stamp: 7, sum: 9, headLength: -1, shared: true}
	e.setFields([]phase.Field{{Name: []byte("ETag"), Value: []byte("x")}, {Name: []byte("A"), Value: nil}}, false)
	e.vary = []varied{{"accept", []byte("text/html"), true}, {"b", nil, false}}
	raw := e.appendFile(nil)
	f.Add(raw[headSize:])
	f.Add((&entry{status: 404, variant: variant{class: classPost, tls: true}}).appendFile(nil)[headSize:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, meta []byte) {
		head := (&entry{}).appendFile(nil)[:headSize]
		_, _, _ = readHead(meta)
		if _, _, err := readHead(head); err != nil {
			t.Fatal(err)
		}
		sum := checksum(meta)
		if _, err := readEntry(meta, sum^1); err == nil {
			t.Fatal("a wrong sum was taken")
		}
		e, err := readEntry(meta, sum)
		if err != nil {
			return
		}
		again, err := readEntry(e.appendFile(nil)[headSize:], checksum(e.appendFile(nil)[headSize:]))
		if err != nil || !again.replaces(e) || again.name() != e.name() || len(again.fields) != len(e.fields) || again.size != e.size || again.received != e.received {
			t.Fatalf("%+v became %+v, %v", e, again, err)
		}
	})
}

func FuzzDirectives(f *testing.F) {
	f.Add([]byte(`max-age=1, private="a,b", s-maxage="3", no-cache`))
	f.Add([]byte(`x="\",private`))
	f.Fuzz(func(t *testing.T, value []byte) {
		plain := readDirectives([]phase.Field{{Name: []byte("Cache-Control"), Value: value}})
		more := readDirectives([]phase.Field{{Name: []byte("cache-control"), Value: value}, {Name: []byte("Cache-Control"), Value: []byte("no-store, max-age=0")}})
		if !more.noStore || more.maxAge != 0 || more.private != plain.private || plain.maxAge < -1 || plain.sMaxAge > maxTTL {
			t.Errorf("%+v and %+v", plain, more)
		}
	})
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"cache_key":["$uri"],"cache_http_status":[200],"cache_ttl":1,"cache_zone":"memory_cache","cache_strategy":"memory"}`))
	f.Add([]byte(`[]`))
	k := Kind(nil)
	f.Fuzz(func(t *testing.T, conf []byte) {
		var e phasetest.Env
		if err := k.Validate(conf); err == nil {
			if _, err := k.Build(conf, &e); err != nil {
				t.Errorf("valid, and not built: %v", err)
			}
		}
	})
}
