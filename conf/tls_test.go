package conf

import (
	"strings"
	"testing"
)

func TestGatewayTLSProblems(t *testing.T) {
	for text, want := range map[string]string{
		`listen = [":9443", "[::1]:9444"]`: "",
		`listen = [":9080"]`:               "x.toml:2: gateway.tls.listen[0]: expected an address of its own",
		`listen = ["gate.test:443"]`:       "x.toml:2: gateway.tls.listen[0]: expected host:port",
		`min_version = "1.1"`:              `x.toml:2: gateway.tls.min_version: expected`,
		`handshake_timeout = "0s"`:         "x.toml:2: gateway.tls.handshake_timeout: expected",
		`max_handshakes = 0`:               "x.toml:2: gateway.tls.max_handshakes: expected",
		`fallback_sni = "*.a.test"`:        "x.toml:2: gateway.tls.fallback_sni: expected the name of a server",
		`cert_file = "a.pem"`:              "gateway.tls.key_file: expected the path of the key",
		`key_file = "a.pem"`:               "gateway.tls.cert_file: expected the path of the certificate",
	} {
		_, err := Parse("x.toml", []byte("[gateway.tls]\n"+text+"\n"), nil, nil)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
