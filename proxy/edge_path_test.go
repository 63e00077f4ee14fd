package proxy

import (
	"testing"

	"headgate/proxy/fault"
)

func TestPathSettings(t *testing.T) {
	for _, tt := range []struct {
		name       string
		edge       edge
		raw        string
		path, sent string // "" when it is refused
	}{
		{"as ever", edge{}, "/a%2Fb/c", "/a/b/c", "/a/b/c"},
		{"kept slash", edge{keepSlash: true}, "/a%2Fb/c", "/a%2Fb/c", "/a%2Fb/c"},
		{"kept slash, small", edge{keepSlash: true}, "/a%2fb//c d", "", ""},
		{"kept slash, other escapes", edge{keepSlash: true}, "/a%2fb//%63%20d/./e", "/a%2Fb/c d/e", "/a%2Fb/c%20d/e"},
		{"escaped percent is no kept slash", edge{keepSlash: true}, "/a%252Fb", "/a%2Fb", "/a%252Fb"},
		{"both", edge{keepSlash: true}, "/%2F/a%252Fb", "/%2F/a%2Fb", "/%2F/a%252Fb"},
		{"dots around a kept slash are a name", edge{keepSlash: true}, "/a/..%2Fb", "/a/..%2Fb", "/a/..%2Fb"},
		{"kept slash and trimmed slash", edge{keepSlash: true, trimSlash: true}, "/a%2Fb/", "/a%2Fb", "/a%2Fb"},
		{"parameters", edge{servlet: true}, "/a;x=1/b;y/c", "/a/b/c", "/a/b/c"},
		{"parameters of nothing", edge{servlet: true}, "/a/;x/b", "/a/b", "/a/b"},
		{"parameters off", edge{}, "/a;x=1/b", "/a;x=1/b", "/a;x=1/b"},
		{"dots with parameters", edge{servlet: true}, "/a/..;x/b", "", ""},
		{"dot with parameters", edge{servlet: true}, "/a/.;/b", "", ""},
		{"escaped dots with parameters", edge{servlet: true}, "/a/%2e%2E;/b", "", ""},
		{"parameters and a kept slash", edge{servlet: true, keepSlash: true}, "/a%2Fb;x/c", "/a%2Fb/c", "/a%2Fb/c"},
	} {
		x := &exchange{}
		x.Request.RawPath = []byte(tt.raw)
		f := tt.edge.path(x)
		switch {
		case tt.path == "":
			if f != fault.BadPath {
				t.Errorf("%s: %v, path %s", tt.name, f, x.Request.Path)
			}
		case f != nil || string(x.Request.Path) != tt.path:
			t.Errorf("%s: %v, path %s, want %s", tt.name, f, x.Request.Path, tt.path)
		default:
			if sent := string(tt.edge.appendTarget(nil, x)); sent != tt.sent {
				t.Errorf("%s: sent %s, want %s", tt.name, sent, tt.sent)
			}
		}
	}
}
