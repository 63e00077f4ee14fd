package wire

import (
	"net/url"
	"strings"
	"testing"

	"headgate/proxy/phase"
)

func TestCutLine(t *testing.T) {
	for in, want := range map[string][2]string{
		"a\r\nb":      {"a", "b"},
		"\r\n":        {"", ""},
		"\r\nrest":    {"", "rest"},
		"a\rb\r\nc":   {"a\rb", "c"}, // ValidValue refuses the CR
		"a\r\r\n":     {"a\r", ""},
		"a\r\nb\r\nc": {"a", "b\r\nc"},
	} {
		line, rest, ok := CutLine([]byte(in))
		if !ok || string(line) != want[0] || string(rest) != want[1] {
			t.Errorf("%q: %q, %q, %t", in, line, rest, ok)
		}
	}
	for _, in := range []string{"", "a", "a\r", "\n", "a\n", "a\nb\r\n", "\n\r\n"} {
		if line, _, ok := CutLine([]byte(in)); ok {
			t.Errorf("%q: taken for the line %q", in, line)
		}
	}
}

func TestTrim(t *testing.T) {
	for in, want := range map[string]string{
		"": "", " \t ": "", "a": "a", " a b\t": "a b", "\ta": "a", "a\v": "a\v", "\u00a0a": "\u00a0a", "\r a": "\r a",
	} {
		if got := string(Trim([]byte(in))); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

// TestValid goes through all bytes (RFC 9110 section 5.6.2: tchar; section 5.5: field-value).
func TestValid(t *testing.T) {
	const tchar = "!#$%&'*+-.^_`|~"
	for c := range 256 {
		b := []byte{'a', byte(c), 'z'}
		letter := c|0x20 >= 'a' && c|0x20 <= 'z' && c < 0x80
		token := letter || c >= '0' && c <= '9' || c < 0x80 && strings.IndexByte(tchar, byte(c)) >= 0
		if got := ValidName(b); got != token {
			t.Errorf("name with %#x: %t", c, got)
		}
		value := c == '\t' || c >= ' ' && c != 0x7f
		if got := ValidValue(b); got != value {
			t.Errorf("value with %#x: %t", c, got)
		}
	}
	if ValidName(nil) {
		t.Error("a name may be empty")
	}
	if !ValidValue(nil) {
		t.Error("a value may not be empty")
	}
}

func TestParseLength(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "00": 0, "7": 7, "042": 42, "999999999999999999": 999999999999999999} {
		if n, ok := ParseLength([]byte(in)); !ok || n != want {
			t.Errorf("%q: %d, %t", in, n, ok)
		}
	}
	for _, in := range []string{
		"", " ", "+1", "-1", "1 ", " 1", "1,1", "1, 1", "0x1", "1e3", "1.0", "1_0", "\xd9\xa1", "1000000000000000000", "9223372036854775808",
		"18446744073709551617", "000000000000000000000000000000000001", "1\x00",
	} {
		if n, ok := ParseLength([]byte(in)); ok {
			t.Errorf("%q: taken for %d", in, n)
		}
	}
}

func TestLists(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a": "a", "a,b": "a|b", " a ,\tb ": "a|b", "a,,b": "a||b", ",": "", "close": "close", "a b": "a b", "a,": "a",
	} {
		var got []string
		for rest := []byte(in); len(rest) > 0; {
			var e []byte
			e, rest = NextElement(rest)
			got = append(got, string(e))
		}
		if s := strings.Join(got, "|"); s != want {
			t.Errorf("%q: %q, want %q", in, s, want)
		}
	}
	for in, want := range map[string]bool{
		"close": true, "Close": true, "keep-alive, close": true, "keep-alive,CLOSE ,x": true, "\tclose\t": true,
		"": false, "closed": false, "clos": false, "close x": false, "not-close": false, "\"close\"": false, "close;q=1": false, "c\x00lose": false,
	} {
		if got := HasToken([]byte(in), "close"); got != want {
			t.Errorf("%q: %t", in, got)
		}
	}
}

func header(lines string) *phase.Header {
	h := &phase.Header{}
	for name := range strings.FieldsSeq(lines) {
		h.Add([]byte(name), []byte("v"))
	}
	return h
}

func names(h *phase.Header) string {
	var out []string
	for _, f := range h.Fields() {
		out = append(out, string(f.Name))
	}
	return strings.Join(out, " ")
}

func TestStripNamed(t *testing.T) {
	const all = "Host Content-Length Content-Type Authorization Cookie Set-Cookie X-A X-B X-A"
	for list, want := range map[string]string{
		"":                  all,
		"close, keep-alive": all,
		"X-A":               "Host Content-Length Content-Type Authorization Cookie Set-Cookie X-B",
		"x-b ,, close,":     "Host Content-Length Content-Type Authorization Cookie Set-Cookie X-A X-A",
		"X-A, X-B":          "Host Content-Length Content-Type Authorization Cookie Set-Cookie",
		"HOST,content-length, Content-type,authorization,cookie,SET-COOKIE": all,
		"X-": all, "X": all, "X-AA": all,
	} {
		h := header(all)
		StripNamed(h, []byte(list))
		if got := names(h); got != want {
			t.Errorf("%q: left %q, want %q", list, got, want)
		}
	}
}

func TestAppendPath(t *testing.T) {
	for in, want := range map[string]string{
		"/": "/", "/a-b._~!$&'()*+,;=:@/c": "/a-b._~!$&'()*+,;=:@/c", "/a b": "/a%20b", "/a%2Fb": "/a%252Fb", "/a?b#c": "/a%3Fb%23c",
		"/\r\n": "/%0D%0A", "/\x00\xff": "/%00%FF", "/ä": "/%C3%A4", "/\"<>\\^`{|}": "/%22%3C%3E%5C%5E%60%7B%7C%7D", "/[]": "/%5B%5D",
	} {
		if got := string(AppendPath([]byte("x"), []byte(in))); got != "x"+want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

// FuzzAppendPath: what is written can stand in a request line, and reads back as what it was.
func FuzzAppendPath(f *testing.F) {
	f.Add([]byte("/a b/%2e\r\n?#ä"))
	f.Fuzz(func(t *testing.T, path []byte) {
		out := string(AppendPath(nil, path))
		if strings.ContainsAny(out, " \t\r\n?#\x00\"\\") {
			t.Fatalf("%q: %q", path, out)
		}
		if back, err := url.PathUnescape(out); err != nil || back != string(path) {
			t.Fatalf("%q: %q reads back as %q, %v", path, out, back, err)
		}
	})
}

// FuzzLists: StripNamed removes exactly the lines that HasToken finds, but for the protected ones.
func FuzzLists(f *testing.F) {
	f.Add([]byte("close, X-A"), []byte("x-a"))
	f.Add([]byte(",,\t,a b,"), []byte("b"))
	f.Fuzz(func(t *testing.T, list, name []byte) {
		if !ValidName(name) {
			return
		}
		h := &phase.Header{}
		h.Add(name, []byte("v"))
		h.Add([]byte("Host"), []byte("v"))
		StripNamed(h, list)
		_, left := h.Get(string(name))
		if want := !HasToken(list, string(name)) || protected(name); left != want {
			t.Fatalf("list %q, name %q: left %t", list, name, left)
		}
		if _, ok := h.Get("host"); !ok {
			t.Fatal("the Host line is gone")
		}
	})
}

func TestAlloc(t *testing.T) {
	list, path, out := []byte("keep-alive, X-Hop"), []byte("/a b/c"), make([]byte, 0, 64)
	h := header("X-A X-Hop")
	if n := testing.AllocsPerRun(100, func() {
		StripNamed(h, list)
		out = AppendPath(out[:0], path)
		if _, ok := ParseLength([]byte("42")); !ok || !ValidName(path[1:2]) || HasToken(list, "close") {
			t.Error("wrong")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
