package vars

import (
	"net/url"
	"strings"
	"testing"
)

func TestQueryArg(t *testing.T) {
	for _, c := range []struct {
		query, name, want string
		ok                bool
	}{
		{"k=v", "k", "v", true},
		{"k=v&k=w", "k", "v", true},
		{"k=w&k=v", "k", "w", true},
		{"a=1&k=v", "k", "v", true},
		{"K=v", "k", "", false},
		{"K=v", "K", "v", true},
		{"kk=v", "k", "", false},
		{"k=v", "kk", "", false},
		{"", "k", "", false},
		{"k=", "k", "", true},
		{"k=&k=2", "k", "", true},
		{"k", "k", "true", true},
		{"k&k=2", "k", "true", true},
		{"k==v=", "k", "=v=", true},
		{"k=a%20b", "k", "a b", true},
		{"k=a+b", "k", "a b", true},
		{"k=%C3%bc", "k", "ü", true},
		{"k=100%", "k", "100%", true},
		{"k=%zz%4", "k", "%zz%4", true},
		{"k=%2525", "k", "%25", true},
		{"%6B=v", "k", "v", true},
		{"a+b=v", "a b", "v", true},
		{"=v", "", "", false},
		{"&&k=v&", "k", "v", true},
		{"k=a;b", "k", "a;b", true},
	} {
		got, ok := QueryArg([]byte(c.query), c.name, []byte("<"))
		if string(got) != "<"+c.want || ok != c.ok {
			t.Errorf("QueryArg(%q, %q) = %q, %v; want %q, %v", c.query, c.name, got, ok, "<"+c.want, c.ok)
		}
	}
}

func TestCookieValue(t *testing.T) {
	for _, c := range []struct {
		header, name, want string
		ok                 bool
	}{
		{"a=b; sid=z", "sid", "z", true},
		{"a=b; sid=z", "a", "b", true},
		{"sid=zz", "sid", "zz", true},
		{"sid=z", "SID", "", false},
		{"xsid=z", "sid", "", false},
		{"", "sid", "", false},
		{"sid", "sid", "", false},
		{"sid=", "sid", "", true},
		{"a=1;sid=z;b=2", "sid", "z", true},
		{" \tsid=z \t;", "sid", "z", true},
		{`sid="q"`, "sid", `"q"`, true},
		{"sid=a=b", "sid", "a=b", true},
		{"sid=1; sid=2", "sid", "2", true},
		{"sid=1; other=2", "sid", "1", true},
	} {
		got, ok := CookieValue([]byte(c.header), c.name)
		if string(got) != c.want || ok != c.ok {
			t.Errorf("CookieValue(%q, %q) = %q, %v; want %q, %v", c.header, c.name, got, ok, c.want, c.ok)
		}
	}
}

func TestHeaderNameEqual(t *testing.T) {
	for _, c := range []struct {
		header, name string
		want         bool
	}{
		{"X-API", "x_api", true},
		{"x_api", "x-api", true},
		{"X_Y", "x_y", true},
		{"User-Agent", "user_agent", true},
		{"X-A", "x_b", false},
		{"X-AB", "x_a", false},
		{"X-A", "x_ab", false},
		{"X@A", "x`a", false},
		{"", "", true},
	} {
		if got := HeaderNameEqual([]byte(c.header), c.name); got != c.want {
			t.Errorf("HeaderNameEqual(%q, %q) = %v", c.header, c.name, got)
		}
	}
}

// What net/url encodes, QueryArg finds and decodes.
func FuzzQueryArg(f *testing.F) {
	f.Add("k", "v", "x=1&%&=")
	f.Add("a b", "100% + ü\x00", "")
	f.Add("&", "=", "k")
	f.Fuzz(func(t *testing.T, name, value, junk string) {
		if name == "" {
			return
		}
		got, ok := QueryArg([]byte(url.QueryEscape(name)+"="+url.QueryEscape(value)+"&"+junk), name, nil)
		if !ok || string(got) != value {
			t.Fatalf("%q = %q, %v; want %q", name, got, ok, value)
		}
		if dst, ok := QueryArg([]byte(junk), name, []byte("<")); !ok && string(dst) != "<" {
			t.Fatalf("an absent argument left %q", dst)
		}
		if v, ok := CookieValue([]byte(junk), name); ok && !strings.Contains(junk, string(v)) {
			t.Fatalf("cookie %q is not part of %q", v, junk)
		}
	})
}

// A cookie is a part of the header, is what follows "name=" in one of its pairs, and the last such pair counts.
func FuzzCookieValue(f *testing.F) {
	f.Add("a=1; b=2; a=3", "a")
	f.Add(" a = 1;;b=\"x;y\"; ab=c=d", "ab")
	f.Add("\ta=;=b;a", "a")
	f.Fuzz(func(t *testing.T, header, name string) {
		want, has := "", false
		for _, pair := range strings.Split(header, ";") {
			key, value, assigned := strings.Cut(strings.Trim(pair, " \t"), "=")
			if assigned && key == name {
				want, has = value, true
			}
		}
		raw := []byte(header)
		got, ok := CookieValue(raw, name)
		if ok != has || string(got) != want {
			t.Errorf("%q of %q: %q, %v; want %q, %v", name, header, got, ok, want, has)
		}
		if string(raw) != header {
			t.Error("the header was changed")
		}
		if n := testing.AllocsPerRun(1, func() { CookieValue(raw, name) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}
