package resource

import "testing"

const typicalRoute = `{"id":"r","uri":"/api/v1/*","methods":["GET","POST"],"host":"api.example.com","vars":[["arg_a","==","1"]],` +
	`"plugins":{"good":{"a":1,"b":"c"}},"upstream":{"type":"roundrobin","nodes":{"10.0.0.1:80":1,"10.0.0.2:80":2},"retries":1}}`

func BenchmarkValidateRoute(b *testing.B) {
	doc, k := object(b, typicalRoute), kind(b, "routes")
	schemas() // compiled once per process
	b.ReportAllocs()
	for b.Loop() {
		if err := Validate(k, "r", doc, fakeEnv{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeRoute(b *testing.B) {
	raw := []byte(typicalRoute)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeRoute(raw); err != nil {
			b.Fatal(err)
		}
	}
}
