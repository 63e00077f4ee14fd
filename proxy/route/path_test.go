package route

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestAppendNormalized(t *testing.T) {
	for _, tt := range []struct {
		raw, want string
		err       error
	}{
		{"", "/", nil},
		{"/", "/", nil},
		{"/a/b", "/a/b", nil},
		{"/a/", "/a/", nil},
		{"//a///b//", "/a/b/", nil},
		{"/a/./b/.", "/a/b/", nil},
		{"/.", "/", nil},
		{"/./", "/", nil},
		{"/a/../b", "/b", nil},
		{"/a/b/..", "/a/", nil},
		{"/a/b/../", "/a/", nil},
		{"/a/b/../../c", "/c", nil},
		{"/a//../b", "/b", nil},
		{"/a/..", "/", nil},
		{"/.../..a/.b/c./d..", "/.../..a/.b/c./d..", nil},
		{"/%68ello", "/hello", nil},
		{"/a%2Fb%2fc", "/a/b/c", nil},
		{"/a%2F%2Fb/%2F", "/a/b/", nil},
		{"/a/%2e/b", "/a/b", nil},
		{"/a/x/%2E%2E/b", "/a/b", nil},
		{"/a/x/.%2E%2Fb", "/a/b", nil},
		{"/a%20b+c", "/a b+c", nil},
		{"/%C3%A9\xc3\xa9", "/éé", nil},
		{"/a%0ab%7f", "/a\nb\x7f", nil},
		{"/a%2541", "/a%41", nil},
		{"/a%252e%252e", "/a%2e%2e", nil},
		{"/a%23b%3Fc", "/a#b?c", nil},
		{"/a#frag/../../..", "/a", nil},
		{"/a/..#x", "/", nil},
		{"/a?b=%zz", "/a", nil},
		{"/a;v=1", "/a;v=1", nil},
		{`/a\..\b`, `/a\..\b`, nil},
		{"a", "", ErrPathRelative},
		{"*", "", ErrPathRelative},
		{"#a", "", ErrPathRelative},
		{"%2Fa", "", ErrPathRelative},
		{"/%", "", ErrPathEscape},
		{"/a%4", "", ErrPathEscape},
		{"/a%zz", "", ErrPathEscape},
		{"/a%4g", "", ErrPathEscape},
		{"/a%4#1", "", ErrPathEscape},
		{"/a%00b", "", ErrPathNUL},
		{"/a b", "", ErrPathControl},
		{"/a\x00", "", ErrPathControl},
		{"/a\n", "", ErrPathControl},
		{"/a\x7f", "", ErrPathControl},
		{"/..", "", ErrPathAboveRoot},
		{"/../x", "", ErrPathAboveRoot},
		{"//..", "", ErrPathAboveRoot},
		{"/a/../../b", "", ErrPathAboveRoot},
		{"/a/%2e%2e/.%2e/b", "", ErrPathAboveRoot},
		{"/..?", "", ErrPathAboveRoot},
	} {
		got, err := AppendNormalized([]byte("kept"), []byte(tt.raw))
		if !errors.Is(err, tt.err) && (err != nil || tt.err != nil) {
			t.Errorf("%q: error %v, want %v", tt.raw, err, tt.err)
		}
		if string(got) != "kept"+tt.want {
			t.Errorf("%q: got %q, want %q", tt.raw, got, tt.want)
		}
		if err != nil && !errors.Is(err, ErrBadPath) {
			t.Errorf("%q: %v is not ErrBadPath", tt.raw, err)
		}
		if clean := err == nil && tt.raw == tt.want; Clean([]byte(tt.raw)) != clean {
			t.Errorf("%q: Clean is not %v", tt.raw, clean)
		}
	}
	if errors.Is(ErrPathNUL, ErrPathEscape) {
		t.Error("the kinds of PathError are told apart")
	}
}

// refNormalized works on whole strings: decode, merge, then one pass over the segments.
func refNormalized(raw string) (string, bool) {
	if i := strings.IndexAny(raw, "#?"); i > 0 {
		raw = raw[:i]
	}
	if raw == "" {
		return "/", true
	}
	if raw[0] != '/' {
		return "", false
	}
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c <= ' ' || c == 0x7f:
			return "", false
		case c == '%':
			if i+3 > len(raw) {
				return "", false
			}
			hi, lo := strings.IndexByte("0123456789abcdef", raw[i+1]|0x20), strings.IndexByte("0123456789abcdef", raw[i+2]|0x20)
			if raw[i+1] < '0' || raw[i+2] < '0' || hi < 0 || lo < 0 || hi+lo == 0 {
				return "", false
			}
			b.WriteByte(byte(hi<<4 | lo))
			i += 2
		default:
			b.WriteByte(c)
		}
	}
	var kept []string
	segments := strings.Split(b.String(), "/")[1:]
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case "", ".":
		case "..":
			if len(kept) == 0 {
				return "", false
			}
			kept = kept[:len(kept)-1]
		default:
			kept = append(kept, s)
			last = false
		}
		if last {
			kept = append(kept, "")
		}
	}
	return "/" + strings.Join(kept, "/"), true
}

func FuzzAppendNormalized(f *testing.F) {
	for _, s := range []string{"/", "//a/./../b", "/a%2F..%2fb", "/%2e%2E/", "/a%00", "/a%", "/a#b", "/a?b", "/.../..", "/a/b/../../..", "/%41%25", "/\x01"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		got, err := AppendNormalized(nil, raw)
		if !bytes.Equal(raw, before) {
			t.Fatal("the input was changed")
		}
		want, ok := refNormalized(string(raw))
		if ok != (err == nil) || ok && string(got) != want {
			t.Fatalf("%q: got %q, %v, want %q, %v", raw, got, err, want, ok)
		}
		if clean := err == nil && bytes.Equal(got, raw); Clean(raw) != clean {
			t.Fatalf("%q: Clean is not %v", raw, clean)
		}
		if err != nil || bytes.ContainsAny(got, "%#?") || bytes.ContainsFunc(got, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return
		}
		again, err := AppendNormalized(nil, got)
		if err != nil || !bytes.Equal(again, got) {
			t.Fatalf("%q: normalised again: %q, %v", got, again, err)
		}
	})
}
