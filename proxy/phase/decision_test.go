package phase

import (
	"testing"

	"headgate/proxy/vars"
)

func TestBucket(t *testing.T) {
	for text, want := range map[string]Bucket{
		"0":                    {PlaceBucket, 0},
		"17":                   {PlaceBucket, 17},
		"18446744073709551615": {PlaceBucket, 1<<64 - 1},
		"k00000000":            {KeyBucket, 0},
		"k0a1b2c3d":            {KeyBucket, 0x0a1b2c3d},
		"kffffffff":            {KeyBucket, 1<<32 - 1},
	} {
		got, err := ParseBucket(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s: %+v (%s), %v", text, got, got, err)
		}
	}
	for _, text := range []string{"", "k", "k1", "k0a1b2c3", "k0a1b2c3d4", "k0a1b2c3g", "-1", "+1", "1.0", "x", "18446744073709551616", "k-0000001"} {
		if b, err := ParseBucket(text); err == nil {
			t.Errorf("%q was taken for %v", text, b)
		}
	}
	if text := (Bucket{}).String(); text != "" {
		t.Errorf("no bucket is written %q", text)
	}
}

func FuzzParseBucket(f *testing.F) {
	for _, seed := range []string{"17", "k0a1b2c3d", "kFFFFFFFF", "007"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b, err := ParseBucket(text)
		if err != nil {
			return
		}
		if again, err := ParseBucket(b.String()); err != nil || again != b {
			t.Errorf("%q: %+v, then %+v, %v", text, b, again, err)
		}
	})
}

func TestDecision(t *testing.T) {
	x := &Exchange{}
	if v, ok := x.Var(vars.Split, nil); ok || len(v) != 0 {
		t.Errorf("without a decision: %q", v)
	}
	x.Revision = 12
	x.Decision = Decision{3, Bucket{KeyBucket, 0xabc}, "v1"}
	if v, ok := x.Var(vars.Split, nil); !ok || string(v) != "12:3:k00000abc:v1" {
		t.Errorf("got %q", v)
	}
	x.Reset()
	if _, ok := x.AppendDecision(nil); ok || x.Revision != 0 {
		t.Error("the next exchange has the decision too")
	}
}

func TestHeaderToken(t *testing.T) {
	for name, want := range map[string]string{
		"v1": "v1", "a b": "a%20b", "gpt-4o:mini": "gpt-4o:mini", "a\r\nSet-Cookie: x": "a%0D%0ASet-Cookie:%20x",
		"100%": "100%25", `"é",;\`: "%22%C3%A9%22%2C%3B%5C", "\x7f": "%7F", "": "",
	} {
		if got := HeaderToken(name); got != want {
			t.Errorf("%q: %q", name, got)
		}
	}
}
