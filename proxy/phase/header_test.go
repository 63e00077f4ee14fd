package phase

import (
	"strings"
	"testing"
)

// lines builds a header from "Name: value" texts.
func lines(text ...string) *Header {
	h := &Header{}
	for _, l := range text {
		name, value, _ := strings.Cut(l, ": ")
		h.Add([]byte(name), []byte(value))
	}
	return h
}

func (h *Header) text() string {
	var b strings.Builder
	for _, f := range h.Fields() {
		b.WriteString(string(f.Name) + ": " + string(f.Value) + "\n")
	}
	return b.String()
}

func TestHeaderEdits(t *testing.T) {
	start := []string{"Accept: a", "X-Twice: 1", "Host-Like: h", "x-twice: 2", "X-TWICE: 3", "Zed: z"}
	tests := []struct {
		name string
		edit func(h *Header)
		want string
	}{
		{"nothing", func(*Header) {}, "Accept: a\nX-Twice: 1\nHost-Like: h\nx-twice: 2\nX-TWICE: 3\nZed: z\n"},
		{"Add goes last, even when the name is there", func(h *Header) { h.Add([]byte("accept"), []byte("b")) },
			"Accept: a\nX-Twice: 1\nHost-Like: h\nx-twice: 2\nX-TWICE: 3\nZed: z\naccept: b\n"},
		{"Set keeps the place and the spelling of the first and drops the rest", func(h *Header) { h.Set([]byte("x-TWICE"), []byte("new")) },
			"Accept: a\nX-Twice: new\nHost-Like: h\nZed: z\n"},
		{"Set of a new name goes last", func(h *Header) { h.Set([]byte("New"), []byte("n")) },
			"Accept: a\nX-Twice: 1\nHost-Like: h\nx-twice: 2\nX-TWICE: 3\nZed: z\nNew: n\n"},
		{"Set to nothing keeps the line", func(h *Header) { h.Set([]byte("Zed"), nil) },
			"Accept: a\nX-Twice: 1\nHost-Like: h\nx-twice: 2\nX-TWICE: 3\nZed: \n"},
		{"Del takes all of them", func(h *Header) { h.Del("x-twice") }, "Accept: a\nHost-Like: h\nZed: z\n"},
		{"Del of first and last", func(h *Header) { h.Del("ACCEPT"); h.DelBytes([]byte("zed")) }, "X-Twice: 1\nHost-Like: h\nx-twice: 2\nX-TWICE: 3\n"},
		{"Truncate", func(h *Header) { h.Truncate(2) }, "Accept: a\nX-Twice: 1\n"},
		{"Truncate beyond the end brings nothing back", func(h *Header) { h.Truncate(2); h.Truncate(6) }, "Accept: a\nX-Twice: 1\n"},
		{"Reset and Add", func(h *Header) { h.Reset(); h.Add([]byte("A"), []byte("1")) }, "A: 1\n"},
	}
	for _, tt := range tests {
		h := lines(start...)
		tt.edit(h)
		if got := h.text(); got != tt.want {
			t.Errorf("%s: got\n%swant\n%s", tt.name, got, tt.want)
		}
		if h.Len() != strings.Count(tt.want, "\n") {
			t.Errorf("%s: Len is %d", tt.name, h.Len())
		}
	}
}

func TestHeaderDelSaysWhetherThereWasOne(t *testing.T) {
	h := lines("A: 1", "B: 2")
	if !h.Del("a") || h.Del("a") || h.Del("c") {
		t.Error("Del is wrong about what it removed")
	}
	if v, ok := h.Get("b"); string(v) != "2" || !ok {
		t.Errorf("Get(b) = %q, %v", v, ok)
	}
	if _, ok := h.Get("a"); ok {
		t.Error("a is still there")
	}
}

// A header rests in a pool between exchanges: it must not hold on to the bytes of requests that are over.
func TestHeaderLetsBorrowedBytesGo(t *testing.T) {
	h := lines("A: 1", "B: 2", "A: 3", "C: 4")
	h.Del("A")
	h.Truncate(1)
	h.Reset()
	for i, f := range h.fields[:cap(h.fields)] {
		if f.Name != nil || f.Value != nil {
			t.Errorf("place %d still holds %q: %q", i, f.Name, f.Value)
		}
	}
}

func TestEqualName(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"", "", true}, {"Host", "hOST", true}, {"Host", "Hos", false}, {"x-a", "x_a", false}, {"a@", "a`", false}, {"a[", "a{", false},
		{"K", "\u212a", false}, {"a\x00", "a ", false}, {"5", "u", false}, {"\xc1", "\xe1", false},
	} {
		if got := EqualName([]byte(tt.a), tt.b); got != tt.want {
			t.Errorf("EqualName(%q, %q) = %v", tt.a, tt.b, got)
		}
	}
}
