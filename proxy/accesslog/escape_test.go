package accesslog

import (
	"bytes"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestAppendEscaped(t *testing.T) {
	full := strings.Repeat("a", MaxField)
	for _, tc := range []struct{ in, want string }{
		{"", ""},
		{"GET /a?b=c HTTP/1.1", "GET /a?b=c HTTP/1.1"},
		{"a\nb\r\tc", `a\x0Ab\x0D\x09c`},
		{`say "hi" \x22`, `say \x22hi\x22 \x5Cx22`},
		{"\x00\x1b[31m\x7f", `\x00\x1B[31m\x7F`},
		{"grüße 日本 😀", "grüße 日本 😀"},
		{"a\xffb\xc3", `a\xFFb\xC3`},
		{"\xed\xa0\x80", `\xED\xA0\x80`}, // a surrogate
		{"\uFFFD", "\uFFFD"},             // valid, though the decoder uses it for errors
		{"\u009b31m", `\xC2\x9B31m`},
		{"a\u2028b\u202ec\u2066", `a\xE2\x80\xA8b\xE2\x80\xAEc\xE2\x81\xA6`},
		{full, full},
		{full + "b", full + Cut},
		{full[1:] + "é", full[1:] + Cut},
		{full[2:] + "é", full[2:] + "é"},
		{full[3:] + "\n", full[3:] + Cut},
		{full[4:] + "\n", full[4:] + `\x0A`},
		{full + `\...`, full + Cut},
	} {
		if got := string(AppendEscapedString([]byte("x:"), tc.in)); got != "x:"+tc.want {
			t.Errorf("%.40q: got %.60q, want %.60q", tc.in, got, tc.want)
		}
		if got := string(AppendEscaped(nil, []byte(tc.in))); got != tc.want {
			t.Errorf("bytes %.40q: got %.60q, want %.60q", tc.in, got, tc.want)
		}
	}
}

func TestAppendEscapedDoesNotAllocate(t *testing.T) {
	dst := make([]byte, 0, 2*MaxField)
	value := []byte("/path with \"quotes\" and \n and é and \xff")
	if n := testing.AllocsPerRun(100, func() { dst = AppendEscaped(dst[:0], value) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// unescape is the reader's side: it fails on anything that an honest line cannot contain.
func unescape(t *testing.T, s []byte) (value []byte, cut bool) {
	for len(s) > 0 {
		if s[0] != '\\' {
			value, s = append(value, s[0]), s[1:]
			continue
		}
		if string(s) == Cut {
			return value, true
		}
		if len(s) < 4 || s[1] != 'x' {
			t.Fatalf("bad escape at %q", s)
		}
		hi, lo := strings.IndexByte("0123456789ABCDEF", s[2]), strings.IndexByte("0123456789ABCDEF", s[3])
		if hi < 0 || lo < 0 {
			t.Fatalf("bad escape at %q", s)
		}
		value, s = append(value, byte(hi<<4|lo)), s[4:]
	}
	return value, false
}

func FuzzAppendEscaped(f *testing.F) {
	for _, s := range []string{"", "plain", "a\nb", `"\`, "\xff\xc3", "\u2028\u009b", "\\...", "\\x41", strings.Repeat("é", 1100)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		out := AppendEscaped(nil, value)
		if len(out) > MaxField+len(Cut) {
			t.Fatalf("%d bytes", len(out))
		}
		if !utf8.Valid(out) || bytes.ContainsFunc(out, func(c rune) bool { return unicode.IsControl(c) || c == '"' || c == 0x2028 }) {
			t.Fatalf("unsafe output %q", out)
		}
		back, cut := unescape(t, out)
		if cut && !bytes.HasPrefix(value, back) || !cut && !bytes.Equal(value, back) {
			t.Fatalf("%q reads back as %q (cut %t)", value, back, cut)
		}
	})
}

func BenchmarkAppendEscaped(b *testing.B) {
	dst := make([]byte, 0, 4096)
	value := []byte("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)")
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendEscaped(dst[:0], value)
	}
}
