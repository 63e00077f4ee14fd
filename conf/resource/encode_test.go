package resource

import (
	"encoding/json"
	"testing"

	"headgate/conf/schema"
)

// Encode writes what the library writes, whichever of the two wrote it.
func FuzzEncode(f *testing.F) {
	for _, s := range []string{
		`{"b":1,"a":[true,false,null,-1,0,-0,1.50,1e3],"<&>":"/\u2028\u0001\\\"é","":{}}`, `[]`, `"x"`, `[[],{}]`, `{"a":{"b":{"c":[1,"2"]}}}`, `"\u007f~"`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		doc, err := schema.DecodeJSON(raw)
		if err != nil {
			return
		}
		got, err := Encode(doc)
		want, wantErr := encodeSlowly(doc)
		if string(got) != string(want) || (err == nil) != (wantErr == nil) {
			t.Errorf("%q: got %s, %v, want %s, %v", raw, got, err, want, wantErr)
		}
	})
}

// What no decoder makes is the library's to judge.
func TestEncodeOtherTypes(t *testing.T) {
	for want, doc := range map[string]any{
		`null`:         []any(nil),
		`{"a":null}`:   map[string]any{"a": map[string]any(nil)},
		`[7,"x",null]`: []any{7, json.RawMessage(`"x"`), nil},
		`[0]`:          []any{json.Number("")},
	} {
		if got, err := Encode(doc); err != nil || string(got) != want {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
	}
	for _, doc := range []any{json.Number("07"), json.Number("1x"), json.Number("-"), make(chan int)} {
		if got, err := Encode(doc); err == nil {
			t.Errorf("%#v is written as %s", doc, got)
		}
	}
}
