package main

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"headgate/proxy/leaktest"
)

func freePorts() demoOptions {
	return demoOptions{listen: "127.0.0.1:0", admin: "127.0.0.1:0", metrics: "127.0.0.1:0", control: "127.0.0.1:0"}
}

const demoBody = `{"model":"demo","messages":[{"role":"user","content":"hi"}]}`

func TestDemo(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	leaktest.Check(t, patience)
	logged := &logLines{}
	d, err := startDemo(freePorts(), logged.printf)
	if err != nil {
		t.Fatalf("%v\n%s", err, logged)
	}
	closed := false
	defer func() {
		if !closed {
			d.close()
		}
	}()
	client := newClient(t)
	url := "http://" + d.gateways[0].Addr().String() + "/chat/completions"
	ask := func() string {
		t.Helper()
		a := send(t, client, "POST", url, demoBody, "Content-Type: application/json", "Authorization: Bearer demo")
		if a.status != http.StatusOK {
			t.Fatal(a)
		}
		_, model, _ := strings.Cut(a.body, `"model":"`)
		model, _, _ = strings.Cut(model, `"`)
		return model
	}
	for range 5 {
		if a, b := ask(), ask(); a != "demo-v1" || b != "demo-v2" {
			t.Fatalf("the answers come from %s and %s", a, b)
		}
	}
	demoStream(t, d.gateways[0].Addr().String())
	a := send(t, client, "PATCH", "http://"+d.addr("admin")+"/apisix/admin/routes/aimlapi-split/weights", "v1=0&v2=20", "X-API-KEY: "+d.key)
	if a.status != http.StatusOK {
		t.Error(a)
	}
	for range 5 {
		if m := ask(); m != "demo-v2" {
			t.Errorf("v1 has weight 0, the answer comes from %s", m)
		}
	}
	client.CloseIdleConnections()
	d.close()
	closed = true
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// demoStream sees to it that the first token is there before the last one is sent, which takes some hundred milliseconds.
func demoStream(t *testing.T, gateway string) {
	t.Helper()
	c := dialWire(t, gateway)
	defer c.Close()
	const body = `{"model":"demo","stream":true,"messages":[]}`
	if _, err := io.WriteString(c, "POST /chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 44\r\n\r\n"+body); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if kind := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || kind != "text/event-stream" {
		t.Errorf("status %d, Content-Type %q", res.StatusCode, kind)
	}
	piece := make([]byte, 64<<10)
	n, err := res.Body.Read(piece)
	if err != nil || !strings.HasPrefix(string(piece[:n]), "data: ") || strings.Contains(string(piece[:n]), "[DONE]") {
		t.Fatalf("the first piece is %q, %v", piece[:n], err)
	}
	rest, err := io.ReadAll(res.Body)
	all := string(piece[:n]) + string(rest)
	if err != nil || !strings.HasSuffix(all, "data: [DONE]\n\n") || !strings.Contains(all, `{"content":"Hello "}`) {
		t.Errorf("the stream is %q, %v", all, err)
	}
}

// TestDemoCommand runs the program, and the commands that it prints in the shell that its reader would use.
func TestDemoCommand(t *testing.T) {
	for _, program := range []string{"curl", "sh"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%s is needed to try what the demo prints (Debian's package is called curl): %v", program, err)
		}
	}
	binary(t) // before the directory for temporary files changes
	t.Setenv("TMPDIR", t.TempDir())
	c := startChild(t, t.TempDir(), "demo", "-listen", "127.0.0.1:0", "-admin", "127.0.0.1:0", "-metrics", "127.0.0.1:0", "-control", "127.0.0.1:0")
	eventually(t, "the guide", func() bool { return strings.Contains(c.stdout.String(), "Stop with Ctrl-C.") })
	commands := printedCommands(c.stdout.String())
	tests := []struct {
		begins string
		want   []string // in this order in what the command prints
	}{
		{"curl -s http", []string{`"model":"demo-v1"`, `Hello from v1!`}},
		{"curl -sN http", []string{"data: ", `{"content":"Hello "}`, "data: [DONE]"}},
		{"for i in $(seq 100)", []string{`50 "model":"demo-v1"`, `50 "model":"demo-v2"`}},
		{"curl -s http", []string{`apisix_http_requests_total{route="aimlapi-split",upstream="v1"} 51`, `apisix_http_requests_total{route="aimlapi-split",upstream="v2"} 51`}},
		{"grep -c", []string{"51"}},
		{"curl -s -X PATCH", []string{`"v1":{"old":50,"new":80}`, `"v2":{"old":50,"new":20}`}},
		{"curl -s http", []string{`"weight":80`, `"weight":20`}},
		{"curl -s http", []string{`"key":"routes/aimlapi-split"`, `"split":`}},
	}
	if len(commands) != len(tests) {
		t.Fatalf("%d commands are printed, expected %d:\n%s", len(commands), len(tests), strings.Join(commands, "\n"))
	}
	for i, tt := range tests {
		if !strings.HasPrefix(commands[i], tt.begins) {
			t.Errorf("command %d is %s", i+1, commands[i])
			continue
		}
		var out string
		try := func() bool {
			out = shell(t, commands[i])
			rest := out
			for _, want := range tt.want {
				var found bool
				if _, rest, found = strings.Cut(rest, want); !found {
					return false
				}
			}
			return true
		}
		if tt.begins == "grep -c" { // lines are written some time after their requests, and asking again is harmless
			eventually(t, "the access log of the demo", try)
		} else if !try() {
			t.Errorf("%s\nprints %s\nwant %q", commands[i], out, tt.want)
		}
	}
	c.signal(syscall.SIGINT)
	if status := c.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// printedCommands finds the indented lines of the guide that are commands, with the lines that continue them.
func printedCommands(guide string) (commands []string) {
	continued := false
	for line := range strings.Lines(guide) {
		text := strings.TrimSpace(line)
		switch {
		case continued:
			commands[len(commands)-1] += "\n" + text
		case strings.HasPrefix(line, "  curl ") || strings.HasPrefix(line, "  for ") || strings.HasPrefix(line, "  grep "):
			commands = append(commands, text)
		default:
			continue
		}
		continued = strings.HasSuffix(text, `\`)
	}
	return commands
}

func shell(t *testing.T, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}
