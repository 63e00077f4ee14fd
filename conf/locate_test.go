package conf

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLocate(t *testing.T) {
	f := func(name, text string, want map[string]int) {
		t.Helper()
		if diff := cmp.Diff(want, locate([]byte(text))); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	f("tables and pairs", "# c [x]\na = 1 # b = 2\n\n[t]\r\nb = 2\r\n  [ t . u ] # c\nc=3",
		map[string]int{"a": 2, "t": 4, "t.b": 5, "t.u": 6, "t.u.c": 7})
	f("dotted and quoted keys", "a.b = 1\na . c = 2\n\"a.b\".'c d' = 3\n[x.\"y\\\"z\"]\nk=1\n",
		map[string]int{"a": 1, "a.b": 1, "a.c": 2, `"a.b"`: 3, `"a.b"."c d"`: 3, "x": 4, `x."y\"z"`: 4, `x."y\"z".k`: 5})
	f("arrays of tables", "[[a]]\nx=1\n[[a.b]]\ny=1\n[[a.b]]\ny=2\n[a.c]\nz=1\n[[a]]\n[[a.b]]\ny=3\n",
		map[string]int{
			"a": 1, "a[0]": 1, "a[0].x": 2, "a[0].b": 3, "a[0].b[0]": 3, "a[0].b[0].y": 4, "a[0].b[1]": 5, "a[0].b[1].y": 6,
			"a[0].c": 7, "a[0].c.z": 8, "a[1]": 9, "a[1].b": 10, "a[1].b[0]": 10, "a[1].b[0].y": 11,
		})
	f("arrays and inline tables", "a = [ # x\n 1,\n [2, # ]\n  3],\n {b = 4, c.d = \"]}\"},\n]\ne={f=1,\n g=2}\nh=1\n",
		map[string]int{
			"a": 1, "a[0]": 2, "a[1]": 3, "a[1][0]": 3, "a[1][1]": 4, "a[2]": 5, "a[2].b": 5, "a[2].c": 5, "a[2].c.d": 5,
			"e": 7, "e.f": 7, "e.g": 8, "h": 9,
		})
	f("strings that look like structure", "a = \"\"\"\n[x]\ny=1 \\\"\"\" \"\"\"\"\"\nb = '''\n[z]''''\nc = 'x\\'\nd = \"\\\"#\"\ne=1",
		map[string]int{"a": 1, "b": 4, "c": 6, "d": 7, "e": 8})
}

func TestParentKey(t *testing.T) {
	for key, want := range map[string]string{
		"a.b[2]": "a.b", "a.b": "a", "a": "", "": "", `a."b.c[0]"`: "a", `a."b\".c".d`: `a."b\".c"`, "a[0][1]": "a[0]",
	} {
		if got := parentKey(key); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
}
