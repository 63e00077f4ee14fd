package resource

import (
	"bytes"
	"testing"

	"headgate/conf/schema"
)

// kindSamples has a document of each kind that passes Validate with fakeEnv, in JSON, by segment and id.
var kindSamples = []struct{ segment, id, doc string }{
	{"routes", "1", `{"id":"1","uri":"/a","plugins":{"good":{"n":1.5,"list":[1,"a",{"b":true}]}},"upstream":{"nodes":{"10.0.0.1:80":1}}}`},
	{"services", "1", `{"hosts":["a.com"],"upstream_id":1,"labels":{"a":"b"}}`},
	{"upstreams", "1", `{"nodes":[{"host":"a","port":80,"weight":0}],"tls":{"client_cert_id":"2"},"retries":0}`},
	{"consumers", "jill", `{"username":"jill","group_id":"1","plugins":{"auth":{"key":"k"},"good":{}},"labels":{"custom_id":"1"}}`},
	{"credentials", "jack/credentials/c1", `{"id":"c1","plugins":{"auth":{"key":"k"}},"desc":"d"}`},
	{"consumer_groups", "1", `{"id":"1","plugins":{"good":{}},"name":"n"}`},
	{"plugin_configs", "1", `{"id":1,"plugins":{"inert":{"x":{}}}}`},
	{"global_rules", "7", `{"id":"7","plugins":{"good":[]}}`},
	{"plugin_metadata", "http-logger", `{"id":"http-logger","log_format":{"host":"$host"}}`},
	{"ssls", "1", `{"id":"1","sni":"*.a.com","cert":"$secret://vault/1/c","key":"$env://KEY","ssl_protocols":["TLSv1.3"]}`},
	{"secrets", "vault/1", `{"id":"vault/1","uri":"http://127.0.0.1:8200","prefix":"kv","token":"t"}`},
	{"protos", "1", `{"id":"1","content":"syntax = \"proto3\";\nmessage A {\n  string n = 1; // \"é\"\n}\n"}`},
}

// Every kind can be written in TOML as well as in JSON, and means the same.
func TestTOMLOfKinds(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range kindSamples {
		seen[c.segment] = true
		k, doc := kind(t, c.segment), object(t, c.doc)
		if err := Validate(k, c.id, doc, fakeEnv{}); err != nil {
			t.Errorf("%s: %v", c.segment, err)
		}
		text, err := ToTOML(doc)
		if err != nil {
			t.Fatalf("%s: %v", c.segment, err)
		}
		back, err := FromTOML(text)
		if err != nil {
			t.Fatalf("%s: %v\n%s", c.segment, err, text)
		}
		want, _ := Encode(doc)
		if got, _ := Encode(back); !bytes.Equal(got, want) {
			t.Errorf("%s: came back as\n%s\nfrom\n%s", c.segment, got, want)
		}
	}
	for _, k := range Kinds() {
		if !seen[k.Segment] {
			t.Errorf("no sample of %s", k.Segment)
		}
	}
}

// Whatever is stored can be read: a document that passes has a typed form, and judging it again gives the same.
func FuzzValidate(f *testing.F) {
	for i, c := range kindSamples {
		f.Add(uint8(i), c.doc)
	}
	f.Fuzz(func(t *testing.T, which uint8, text string) {
		sample := kindSamples[int(which)%len(kindSamples)]
		v, err := schema.DecodeJSON([]byte(text))
		doc, ok := v.(map[string]any)
		if err != nil || !ok {
			return
		}
		checkStorable(t, sample.segment, sample.id, doc)
	})
}

func FuzzValidateTOML(f *testing.F) {
	for i, c := range kindSamples {
		doc, err := schema.DecodeJSON([]byte(c.doc))
		if err != nil {
			f.Fatal(err)
		}
		text, err := ToTOML(doc.(map[string]any))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), string(text))
	}
	f.Fuzz(func(t *testing.T, which uint8, text string) {
		sample := kindSamples[int(which)%len(kindSamples)]
		doc, err := FromTOML([]byte(text))
		if err != nil {
			return
		}
		checkStorable(t, sample.segment, sample.id, doc)
	})
}

func checkStorable(t *testing.T, segment, id string, doc map[string]any) {
	t.Helper()
	k := kind(t, segment)
	before, err := Encode(doc)
	if err != nil {
		t.Fatal(err)
	}
	refusal := Validate(k, id, doc, fakeEnv{})
	after, err := Encode(doc)
	if err != nil || !bytes.Equal(before, after) {
		t.Fatalf("%s: Validate changed %s to %s", segment, before, after)
	}
	if refusal != nil {
		if refusal.Msg == "" || refusal.Status != 400 && refusal.Status != 404 {
			t.Fatalf("%s: refused with %d %q", segment, refusal.Status, refusal.Msg)
		}
		return
	}
	if err := decodeAs(k, before); err != nil {
		t.Fatalf("%s: %s passes and can't be decoded: %v", segment, before, err)
	}
	again, err := schema.DecodeJSON(before)
	if err != nil {
		t.Fatal(err)
	}
	if refusal := Validate(k, id, again.(map[string]any), fakeEnv{}); refusal != nil {
		t.Fatalf("%s: %s passes, what is stored of it does not: %v", segment, before, refusal)
	}
}

func FuzzValidateConfigs(f *testing.F) {
	for _, c := range kindSamples {
		f.Add(`{"` + c.segment + `":[` + c.doc + `,` + c.doc + `]}`)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := schema.DecodeJSON([]byte(text))
		doc, ok := v.(map[string]any)
		if err != nil || !ok {
			return
		}
		for _, e := range ValidateConfigs(doc, fakeEnv{}) {
			items, _ := asList(doc[e.ResourceType])
			if e.Error == "" || e.Index != 0 && e.Index >= len(items) {
				t.Fatalf("%s: %+v", text, e)
			}
		}
	})
}
