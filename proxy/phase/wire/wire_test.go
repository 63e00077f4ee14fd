package wire

import (
	"bytes"
	"strings"
	"testing"

	"headgate/proxy/phase"
)

func TestCutLine(t *testing.T) {
	for _, tt := range []struct {
		in, line, rest string
		ok             bool
	}{
		{"a: b\r\nc", "a: b", "c", true},
		{"\r\nc", "", "c", true},
		{"a\rb\r\n", "a\rb", "", true},
		{"a\n", "", "", false},
		{"\n", "", "", false},
		{"a\nb\r\n", "", "", false},
		{"a\r", "", "", false},
		{"", "", "", false},
	} {
		line, rest, ok := CutLine([]byte(tt.in))
		if string(line) != tt.line || string(rest) != tt.rest || ok != tt.ok {
			t.Errorf("%q: %q, %q, %t", tt.in, line, rest, ok)
		}
	}
}

func TestTrim(t *testing.T) {
	for in, want := range map[string]string{"": "", " \t ": "", " a b\t": "a b", "a": "a", "\va\f": "\va\f", "\u00a0": "\u00a0"} {
		if got := string(Trim([]byte(in))); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

// TestGrammar checks every byte against the text of RFC 9110 sections 5.6.2 and 5.5, and of RFC 3986 section 3.3.
func TestGrammar(t *testing.T) {
	const alnum = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for i := range 256 {
		b := []byte{'a', byte(i), 'a'}
		in := func(set string) bool { return strings.IndexByte(alnum+set, byte(i)) >= 0 }
		if got, want := ValidName(b), in("!#$%&'*+-.^_`|~"); got != want {
			t.Errorf("name with %#x: %t", i, got)
		}
		if got, want := ValidValue(b), i >= ' ' && i != 0x7f || i == '\t'; got != want {
			t.Errorf("value with %#x: %t", i, got)
		}
		if got, want := len(AppendPath(nil, b)) == 3, in("-._~!$&'()*+,;=:@/"); got != want {
			t.Errorf("path with %#x: %q", i, AppendPath(nil, b))
		}
	}
	if ValidName(nil) || !ValidValue(nil) {
		t.Error("an empty name is none, an empty value is one")
	}
	if got := string(AppendPath([]byte("x"), []byte("/a b%\xff\n"))); got != "x/a%20b%25%FF%0A" {
		t.Errorf("%s", got)
	}
}

func TestParseLength(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "007": 7, "999999999999999999": 999999999999999999} {
		if got, ok := ParseLength([]byte(in)); got != want || !ok {
			t.Errorf("%s: %d, %t", in, got, ok)
		}
	}
	for _, in := range []string{"", "-1", "+1", " 1", "1 ", "1,1", "0x1", "1e3", "1_0", "1000000000000000000", "９"} {
		if got, ok := ParseLength([]byte(in)); ok {
			t.Errorf("%q: %d", in, got)
		}
	}
}

func TestLists(t *testing.T) {
	var got []string
	for list := []byte(" a ,,\tb, c d,"); len(list) > 0; {
		var e []byte
		e, list = NextElement(list)
		got = append(got, string(e))
	}
	if s := strings.Join(got, "|"); s != "a||b|c d" {
		t.Errorf("%s", s)
	}
	for list, want := range map[string]bool{"close": true, "keep-alive, Close": true, "closed": false, "": false, "a,,\tCLOSE ,b": true, "clo se": false, "close;x": false} {
		if HasToken([]byte(list), "close") != want {
			t.Errorf("%q", list)
		}
	}
}

func TestStripNamed(t *testing.T) {
	names := "A B b Host Content-Length Content-Type Authorization Cookie Set-Cookie apikey X-API-Key C"
	h := &phase.Header{}
	for n := range strings.FieldsSeq(names) {
		h.Add([]byte(n), []byte("v"))
	}
	StripNamed(h, []byte(" close, ,B,host, content-length,CONTENT-TYPE,authorization,cookie,set-cookie,APIKEY,x-api-key, no such,c"))
	var left []string
	for _, f := range h.Fields() {
		left = append(left, string(f.Name))
	}
	if got := strings.Join(left, " "); got != "A Host Content-Length Content-Type Authorization Cookie Set-Cookie apikey X-API-Key" {
		t.Errorf("%s", got)
	}
}

// FuzzLines: what CutLine takes apart is what was there, and nothing that is accepted has a line end in it.
func FuzzLines(f *testing.F) {
	f.Add([]byte("A: b\r\nC:\td \r\n\r\n"))
	f.Add([]byte("A\n\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var again []byte
		rest := raw
		for {
			line, after, ok := CutLine(rest)
			if !ok {
				break
			}
			again = append(append(again, line...), "\r\n"...)
			name, value, _ := bytes.Cut(line, []byte{':'})
			if ValidName(name) && bytes.ContainsAny(name, " \t\r\n:") || ValidValue(Trim(value)) && bytes.ContainsAny(Trim(value), "\r\n\x00") {
				t.Errorf("%q was taken", line)
			}
			rest = after
		}
		if !bytes.Equal(append(again, rest...), raw) {
			t.Errorf("%q became %q", raw, again)
		}
	})
}
