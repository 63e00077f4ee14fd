package seal

import "testing"

func TestMask(t *testing.T) {
	m := NewMasker(fields)
	for _, tt := range []struct{ key, text, want string }{
		{"routes/1", `{"plugins":{"limit-count":{"count":1,"redis_password":"p"}},"upstream":{"tls":{"client_key":"k","client_cert":"c"}}}`,
			`{"plugins":{"limit-count":{"count":1,"redis_password":"***"}},"upstream":{"tls":{"client_cert":"c","client_key":"***"}}}`},
		{"consumers/jack", `{"plugins":{"key-auth":{"key":"k"}},"username":"jack"}`, `{"plugins":{"key-auth":{"key":"***"}},"username":"jack"}`},
		{"routes/1", `{"plugins":{"limit-count":{"redis_password":"$env://P"}}}`, `{"plugins":{"limit-count":{"redis_password":"$env://P"}}}`},
		{"routes/1", ` {"uri" : "/a"}`, ` {"uri" : "/a"}`},
		{"routes/1", `{"plugins":{"traffic-split":{"rules":[{"upstream":{"tls":{"client_key":"k"}},"weight":1}]}}}`,
			`{"plugins":{"traffic-split":{"rules":[{"upstream":{"tls":{"client_key":"***"}},"weight":1}]}}}`},
		{"routes/1", `{"plugins":`, `{"plugins":`},
		{"routes/1", `{"plugins":{"proxy-rewrite":{"headers":{"set":{"Authorization":"Bearer s","X-Api-Key":"s","X-A":"1","x-token":"$env://T"}}}}}`,
			`{"plugins":{"proxy-rewrite":{"headers":{"set":{"Authorization":"***","X-A":"1","X-Api-Key":"***","x-token":"$env://T"}}}}}`},
		{"routes/1", `{"plugins":{"response-rewrite":{"headers":{"add":["Set-Cookie: s","X-A: 1"]}},"forward-auth":{"request_headers":["Authorization"],"uri":"http://u:s@h/x"}}}`,
			`{"plugins":{"forward-auth":{"request_headers":["Authorization"],"uri":"http://u:***@h/x"},"response-rewrite":{"headers":{"add":["***","X-A: 1"]}}}}`},
	} {
		if got := string(m.MaskDocument(tt.key, []byte(tt.text))); got != tt.want {
			t.Errorf("%s: got %s", tt.text, got)
		}
	}
}
