package schema

import (
	"reflect"
	"strings"
	"testing"
)

// The quick parser knows nothing that the library does not know, and means the same by it.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		``, ` `, `{}`, `[]`, `{"a":1}`, ` { "uri" : "/a" , "n" : [ 1 , -2.5 , 0 , -0 , 10 ] , "b":true,"c":false,"d":null } `, `{"a":1,"a":{"b":2}}`,
		`"é\u00e9\ud83d\ude00\ud83d"`, "\"\xff\"", "\"\x01\"", `"\x"`, `"a`, `"a\"`, `{"a"}`, `{"a":}`, `{"a":1,}`, `[1,]`, `[1 2]`, `{"a":1}{"b":2}`, `{} x`,
		`01`, `1.`, `.5`, `-`, `1e5`, `1E+400`, `truex`, `nul`, `{a:1}`, `{"\u0061":1,"a":2}`, "\ufeff{}", "[1]\x00", `{"<&>":"<&>"}`,
		strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth), strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1),
		strings.Repeat(`{"a":`, MaxDepth) + "1" + strings.Repeat("}", MaxDepth), strings.Repeat(`{"a":`, MaxDepth+1) + "1" + strings.Repeat("}", MaxDepth+1),
		strings.Repeat("9", 308), strings.Repeat("9", 310), "-" + strings.Repeat("9", 299) + ".5",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, ok := parse(raw)
		if !ok {
			return
		}
		want, err := decodeSlowly(raw)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %#v, want %#v, %v", raw, got, want, err)
		}
	})
}

// What operators send is decoded without the library: else the parser would be of no use.
func TestParseTakesDocuments(t *testing.T) {
	for _, s := range []string{
		`{"uri":"/*","upstream":{"type":"roundrobin","nodes":{"127.0.0.1:1980":1}},"plugins":{"limit-count":{"count":2,"time_window":0.5}},"labels":{"é":"\n"}}`,
		"{\n\t\"hosts\": [\"a.com\", \"*.b.com\"],\r\n\t\"status\": 1, \"x\": [true, false, null, [], {}, -1]\n}\n",
	} {
		if _, ok := parse([]byte(s)); !ok {
			t.Errorf("%s: left to the library", s)
		}
	}
	for s, want := range map[string]string{
		`{"a":1,}`: "invalid character '}' looking for beginning of object key string at byte 8",
		`{} {}`:    "unexpected data after the document at byte 3",
		`1e999`:    "number out of range: 1e999",
		`{"a":1`:   "unexpected end of the document",
	} {
		if _, err := DecodeJSON([]byte(s)); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", s, err, want)
		}
	}
}

func BenchmarkDecodeJSON(b *testing.B) {
	raw := []byte(`{"id":"r1","uri":"/api/v1/resource4","host":"h00001.example.com","upstream_id":"u1","plugins":{"limit-count":{"count":1000000,` +
		`"time_window":60,"rejected_code":429,"key":"remote_addr"},"proxy-rewrite":{"headers":{"set":{"X-Route":"r1"}}}}}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeJSON(raw); err != nil {
			b.Fatal(err)
		}
	}
}
