package proxy

import (
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"headgate/conf"
	"headgate/proxy/accesslog"
	"headgate/proxy/vars"
)

// TestLogLine: one line for one request, whatever the client writes; a value cannot end its field.
func TestLogLine(t *testing.T) {
	up := newBackend(t, says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Up: a\"b\\\x85\r\n\r\nok"))
	o := defaults()
	var err error
	if o.Format, err = vars.Compile(`"$http_a" "$arg_b" "$cookie_c" "$uri" "$sent_http_x_up" "$http_none" $status "$post_arg_p" ${upstream_addr}`); err != nil {
		t.Fatal(err)
	}
	r := newGate(t, o).to(up.addr)
	long := strings.Repeat("x", accesslog.MaxField+100)
	tests := []struct{ a, target, cookie, want string }{
		{`plain`, "/x?b=1", "c=2", `"plain" "1" "2" "/x" "a\x22b\x5C\x85" "-" 200 "v" ` + up.addr},
		{`q" "forged`, "/%0aINJECTED%22?b=%0d%0a%22", `c="`, `"q\x22 \x22forged" "\x0D\x0A\x22" "\x22" "/\x0AINJECTED\x22" "a\x22b\x5C\x85" "-" 200 "v" ` + up.addr},
		{"tab\there", "/%00x?b=%00", "c=\xff", ``}, // refused
		{"tab\there", "/%1b[2J?b=%7f%c3%a4", "c=\xff", `"tab\x09here" "\x7Fä" "\xFF" "/\x1B[2J" "a\x22b\x5C\x85" "-" 200 "v" ` + up.addr},
		{long, "/x", "", `"` + long[:accesslog.MaxField] + accesslog.Cut + `" "-" "-" "/x" "a\x22b\x5C\x85" "-" 200 "v" ` + up.addr},
	}
	var want []string
	for _, tt := range tests {
		r.once(t, "POST "+tt.target+" HTTP/1.1\r\nHost: a\r\nA: "+tt.a+"\r\nCookie: "+tt.cookie+"\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n\r\np=v")
		want = append(want, tt.want)
	}
	lines := r.lines(len(want)) // of as many connections, which end in any order
	for _, w := range want {
		if w != "" && !slices.Contains(lines, w) {
			t.Errorf("no line is\n%s\nin %q", w, lines)
		}
	}
}

// TestDefaultLogLine: the shipped format has a value in every place, so that a line splits into the same number of fields always.
func TestDefaultLogLine(t *testing.T) {
	up := newBackend(t, says(ok200))
	o := defaults()
	var err error
	if o.Format, err = vars.Compile(conf.Default().AccessLog.Format); err != nil {
		t.Fatal(err)
	}
	r := newGate(t, o).to(up.addr)
	r.once(t, get)
	r.once(t, "GET /nothing%20here HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
	r.once(t, "nonsense\r\n\r\n")
	r.once(t, "GET /x HTTP/1.0\r\n\r\n")
	lines := r.lines(4)
	served := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, `"GET /x HTTP/1.1"`) })
	if served < 0 {
		t.Fatalf("log: %q", lines)
	}
	for _, l := range lines {
		quoted := strings.Split(l, `"`)
		fields := 0
		for i, part := range quoted {
			if i%2 == 0 {
				fields += len(strings.Fields(part))
			} else {
				fields++
			}
		}
		first := strings.Split(lines[served], `"`)
		if len(quoted) != len(first) || strings.Contains(l, `""`) || strings.Contains(l, "  ") {
			t.Errorf("%d fields: %s", fields, l)
		}
	}
	if !strings.Contains(lines[served], up.addr) || !strings.Contains(lines[served], "any") {
		t.Errorf("log: %s", lines[served])
	}
}

// The default line says at its end what went wrong, also when that was after the head had left.
func TestLogLineNamesTheFault(t *testing.T) {
	up := newBackend(t, func(c net.Conn, m message) bool {
		answer := map[string]string{
			"/ok": ok200, "/head": "HTTP/1.1 200\r\nbad", "/body": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
		}[m.target]
		_, _ = io.WriteString(c, answer)
		return false
	})
	o := defaults()
	var err error
	if o.Format, err = vars.Compile(conf.DefaultAccessLogFormat); err != nil {
		t.Fatal(err)
	}
	r := newGate(t, o).to(up.addr)
	for i, tt := range []struct{ path, code string }{{"/ok", "-"}, {"/head", "head_cut"}, {"/body", "body_cut"}, {"/%zz", "bad_path"}} {
		r.once(t, "GET "+tt.path+" HTTP/1.1\r\nHost: a\r\n\r\n")
		if line := r.lines(i + 1)[i]; !strings.HasSuffix(line, " fault="+tt.code) {
			t.Errorf("%s: %s", tt.path, line)
		}
	}
}
