package proxy

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/vars"
)

func TestSecretName(t *testing.T) {
	for name, want := range map[string]bool{
		"apikey": true, "API_KEY": true, "api-key": true, "x-api-key": true, "key": true, "token": true, "access_token": true, "refreshToken": true,
		"password": true, "passwd": true, "pwd": true, "secret": true, "client_secret": true, "sig": true, "X-Amz-Signature": true, "X-Amz-Credential": true,
		"authorization": true, "cookie": true, "set_cookie": true, "PHPSESSID": true, "JSESSIONID": true, "session": true, "jwt": true, "%61pi%6bey": true, "user[password]": true,
		"auth": true, "a.key": true, "key[]": true, "sig[0]": true, "sig%5B%5D": true, "passphrase": true, "passcode": true, "X-Authentication": true,
		"SAMLResponse": true, "client_assertion": true, "otp": true, "bearer": true, "awsaccesskeyid": true, strings.Repeat("x", 97): true,
		"": false, "q": false, "page": false, "monkey": false, "keyboard": false, "design": false, "passenger": false, "author": false, "model": false, "key_a": false, "adopt": false, "%": false, "a%2": false,
	} {
		if got := secretName(name); got != want {
			t.Errorf("%q: %t", name, got)
		}
	}
}

func TestMask(t *testing.T) {
	x := &phase.Exchange{}
	for _, tt := range []struct{ in, want string }{
		{"GET / HTTP/1.1", "GET / HTTP/1.1"},
		{"GET /a@b:c HTTP/1.1", "GET /a@b:c HTTP/1.1"},
		{"GET /?apikey=S HTTP/1.1", "GET /?apikey=*** HTTP/1.1"},
		{"GET /?a=1&apikey=S&b=2 HTTP/1.1", "GET /?a=1&apikey=***&b=2 HTTP/1.1"},
		{"GET /?apikey=S b=S HTTP/1.1", "GET /?apikey=*** HTTP/1.1"},
		{"GET /?apikey= HTTP/1.1", "GET /?apikey=*** HTTP/1.1"},
		{"/?apikey=S=T&&=&token=S;key=S", "/?apikey=***&&=&token=***;key=***"},
		{"/?apikey", "/?apikey"},
		{"/#access_token=S&x=1", "/#access_token=***&x=1"},
		{"/?a=1?token=S#key=S", "/?a=1?token=***#key=***"},
		{"http://u:S@h/a?b=c", "http://***@h/a?b=c"},
		{"http://u@S@h", "http://***@h"},
		{"https://h/a@b", "https://h/a@b"},
		{"http://S@h?x=1", "http://***@h?x=1"},
		{"GET http://u:S@h/ HTTP/1.1", "GET http://***@h/ HTTP/1.1"},
		{"", ""},
	} {
		if got := string(mask(x, []byte(tt.in), false)); got != tt.want {
			t.Errorf("%q became %q, want %q", tt.in, got, tt.want)
		}
	}
	for in, want := range map[string]string{"key=S": "key=***", "a=b": "a=b", "": "", "a&sig=S&b=c": "a&sig=***&b=c"} {
		if got := string(mask(x, []byte(in), true)); got != want {
			t.Errorf("the query %q became %q, want %q", in, got, want)
		}
	}
}

// FuzzMask: no value of a name that is a secret's is left, and everything else is.
func FuzzMask(f *testing.F) {
	for _, s := range []string{"a=1&apikey=c4n4ry", "?key=c4n4ry#sig=c4n4ry", "http://u:c4n4ry@h/?x", "&;=?#"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		x := &phase.Exchange{}
		before := bytes.Clone(in)
		out := mask(x, in, true)
		if !bytes.Equal(in, before) {
			t.Fatalf("%q was changed to %q", before, in)
		}
		split := func(b []byte) [][]byte {
			return bytes.FieldsFunc(b, func(r rune) bool { return strings.ContainsRune("?#&;", r) })
		}
		pairs, left := split(in), split(out)
		if len(pairs) != len(left) {
			t.Fatalf("%q became %q", in, out)
		}
		for i, p := range pairs {
			name, _, found := bytes.Cut(p, []byte{'='})
			want := string(p)
			if found && secretName(string(name)) {
				want = string(name) + "=***" + string(protocolBehindLast(p, i == len(pairs)-1 && bytes.HasSuffix(in, p)))
			}
			if string(left[i]) != want {
				t.Fatalf("%q became %q, want %q", p, left[i], want)
			}
		}
	})
}

func protocolBehindLast(p []byte, last bool) []byte {
	if !last {
		return nil
	}
	return protocolBehind(p)
}

// TestMaskedLine: what a client shows is not in the log, unless the operator wants it; what is no secret is.
func TestMaskedLine(t *testing.T) {
	const format = `"$request" "$request_uri" "$real_request_uri" "$args" "$http_referer" "$arg_token" "$http_authorization" "$http_cookie" "$cookie_session" "$cookie_theme" ` +
		`"$sent_http_set_cookie" "$sent_http_location" "$post_arg_password" "$upstream_uri" "$arg_q" "$http_host"`
	up := newBackend(t, says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: s=c4n4ry\r\nLocation: /?code_token=c4n4ry\r\n\r\nok"))
	ask := func(show bool) string {
		o := defaults()
		o.ShowSecrets = show
		var err error
		if o.Format, err = vars.Compile(format); err != nil {
			t.Fatal(err)
		}
		r := newGate(t, o).to(up.addr)
		r.once(t, "POST /a?q=find&token=c4n4ry&api%5Fkey=c4n4ry HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer c4n4ry\r\nCookie: session=c4n4ry; theme=dark\r\n"+
			"Referer: http://u:c4n4ry@b/?sig=c4n4ry&page=7\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 15\r\n\r\npassword=c4n4ry")
		r.once(t, "GET http://u:c4n4ry@a/?key=c4n4ry HTTP/1.1\r\nHost: a\r\n\r\n")
		r.once(t, "GET / HTTP/1.1\r\nHost: u:c4n4ry@a\r\n\r\n")
		r.once(t, "GET /?key=c4n4ry#token=c4n4ry HTTP/1.1\r\nHost: a\r\nHost: b\r\nReferer: /?key=c4n4ry\r\n\r\n")
		return strings.Join(r.lines(4), "\n")
	}
	hidden := ask(false)
	if strings.Contains(hidden, "c4n4ry") {
		t.Errorf("a secret shows:\n%s", hidden)
	}
	want := `"POST /a?q=find&token=***&api%5Fkey=*** HTTP/1.1" "/a?q=find&token=***&api%5Fkey=***" "/a?q=find&token=***&api%5Fkey=***" "q=find&token=***&api%5Fkey=***" ` +
		`"http://***@b/?sig=***&page=7" "***" "***" "***" "***" "dark" "***" "/?code_token=***" "***" "/a?q=find&token=***&api%5Fkey=***" "find" "a"`
	if !slices.Contains(strings.Split(hidden, "\n"), want) {
		t.Errorf("no line is\n%s\nin\n%s", want, hidden)
	}
	if shown := ask(true); strings.Count(shown, "c4n4ry") < 17 || strings.Contains(shown, "***") {
		t.Errorf("it was masked although nobody wants it:\n%s", shown)
	}
}
