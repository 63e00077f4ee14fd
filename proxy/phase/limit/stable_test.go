package limit

import (
	"bytes"
	"encoding/json"
	"testing"
)

// libraryForm is what Stable wrote before it knew its own form.
func libraryForm(conf []byte) ([]byte, error) {
	doc, err := Decode(conf)
	if err != nil {
		return nil, err
	}
	delete(doc, "_meta")
	return json.Marshal(doc)
}

func TestStable(t *testing.T) {
	for _, tt := range []struct {
		conf   string
		itself bool // is known to be stable
	}{
		{`{}`, true},
		{`{"count":1000000,"key":"remote_addr","rejected_code":429,"time_window":60}`, true},
		{`{"a":[{"b":-1,"c":null},[],{}],"d":true,"e":false,"f":0}`, true},
		{`{"a":{"_meta":1}}`, true},
		{`[]`, false},
		{` {}`, false},
		{`{"b":1,"a":1}`, false},
		{`{"a":1,"a":2}`, false},
		{`{"a":1 ,"b":2}`, false},
		{`{"_meta":{},"a":1}`, false},
		{`{"a":1,"_meta":{}}`, false},
		{`{"a":1.0}`, false},
		{`{"a":1e3}`, false},
		{`{"a":"<"}`, false},
		{`{"a":"\u0041"}`, false},
		{`{"a":"\n"}`, false},
		{"{\"a\":\"\u00e9\"}", false},
		{"{\"\x7f\":\"\"}", false},
	} {
		if got := isStable([]byte(tt.conf)); got != tt.itself {
			t.Errorf("%s is stable: %v, want %v", tt.conf, got, tt.itself)
		}
		want, err := libraryForm([]byte(tt.conf))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Stable([]byte(tt.conf)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s becomes %s, %v, want %s", tt.conf, got, err, want)
		}
	}
	for _, broken := range []string{``, `{`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":"`, `{"a":[`, `{"a":[1`, `{"a":[1,`, `{"a":-}`, `{"a":01}`, `{"a":tru}`, `{,}`} {
		if isStable([]byte(broken)) {
			t.Errorf("%s is taken for stable", broken)
		}
		if _, err := Stable([]byte(broken)); err == nil {
			t.Errorf("%s is no error", broken)
		}
	}
}

// FuzzStable: what is taken for stable is what the library writes.
func FuzzStable(f *testing.F) {
	for _, conf := range []string{`{"a":[1,{"b":null}],"c":"x"}`, `{"a":-0,"b":{}}`, `{"_meta":{},"a":true}`, `{"b":1,"a":2}`, `{"a":"<>&"}`} {
		f.Add([]byte(conf))
	}
	f.Fuzz(func(t *testing.T, conf []byte) {
		if !isStable(conf) {
			return
		}
		want, err := libraryForm(conf)
		if err != nil || !bytes.Equal(conf, want) {
			t.Errorf("%s is not stable: the library writes %s, %v", conf, want, err)
		}
	})
}
