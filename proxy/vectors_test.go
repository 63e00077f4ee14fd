package proxy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/route"
)

// readVectors reads a file of the shared test data, if it is there.
func readVectors[T any](t *testing.T, name string) (list []T) {
	t.Helper()
	dir := os.Getenv("HEADGATE_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared")
	}
	file, err := os.Open(filepath.Join(dir, "testdata", name))
	if os.IsNotExist(err) {
		t.Logf("%s is not here (HEADGATE_SHARED names its folder): only this package's own tables have run", name)
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for lines := json.NewDecoder(file); ; {
		var v T
		if err := lines.Decode(&v); err == io.EOF {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, v)
	}
}

// vector is one connection's worth of requests: its bytes, and what must become of them.
type vector struct {
	Name, Side, Expect, RFC, Why string
	Raw                          []byte `json:"raw_base64"`
	OKBefore                     int    `json:"ok_before"`
	Messages                     []struct {
		Method, Target string
		Body           string `json:"body_sha256"`
		Len            int    `json:"body_len"`
	}
}

// leftVectors are the requests whose treatment is left to the operator's limits.
var leftVectors = map[string]string{
	"gunicorn/valid/024": "longer than the default of gateway.max_header_size",
}

// rawVectors are let through when targets go out as they came: what APISIX does (apisix-observed 2.2), and why it is not the default.
var rawVectors = map[string]bool{
	"http11probe/RFC9112-3.2-FRAGMENT-IN-TARGET":                    true,
	"llhttp/request/uri: Disallow UTF-8 in URI path in strict mode": true,
	"llhttp/request/uri: Fragment in URI":                           true,
}

// judge says what is wrong with how v was treated: got reached the upstream, reply the client. raw: targets are forwarded as sent.
func (v vector) judge(got []message, reply string, raw bool) string {
	for _, m := range got {
		if m.bad != "" {
			return "forwarded: " + m.bad
		}
	}
	switch v.Expect {
	case "reject", "incomplete":
		if len(got) > v.OKBefore {
			return fmt.Sprintf("%d messages passed, %d are valid", len(got), v.OKBefore)
		}
		if last := strings.LastIndex(reply, "HTTP/1.1 "); v.Expect == "reject" && last >= 0 && reply[last+9] < '4' {
			return "the last answer is no refusal: " + reply[last:]
		}
		return ""
	case "accept":
		if len(got) != len(v.Messages) {
			return fmt.Sprintf("%d of %d valid messages passed: %q", len(got), len(v.Messages), reply)
		}
	default:
		if len(got) > len(v.Messages) {
			return fmt.Sprintf("%d messages became %d", len(v.Messages), len(got))
		}
		return ""
	}
	for i, want := range v.Messages {
		sum := sha256.Sum256([]byte(got[i].body))
		if got[i].method != want.Method || len(got[i].body) != want.Len || hex.EncodeToString(sum[:8]) != want.Body {
			return fmt.Sprintf("message %d: %s with %d bytes", i, got[i].method, len(got[i].body))
		}
		if raw && !strings.HasSuffix(want.Target, "...") && !strings.HasSuffix(want.Target, got[i].target) && got[i].target != "/" && !strings.HasPrefix(got[i].target, "/?") {
			return fmt.Sprintf("message %d went to %s, not to %s", i, got[i].target, want.Target)
		}
	}
	return ""
}

func TestRequestVectors(t *testing.T) {
	for _, raw := range []bool{false, true} {
		t.Run(fmt.Sprintf("raw=%t", raw), func(t *testing.T) {
			up := newBackend(t, says(ok200))
			o := defaults()
			o.RawTarget = raw
			r := newGate(t, o).to(up.addr).route("server", `{"uri":"*","on_client_abort":"finish","upstream":{"nodes":{"`+up.addr+`":1}}}`)
			played := map[string]bool{}
			for _, v := range readVectors[vector](t, "http1-vectors.jsonl") {
				if v.Side != "request" {
					continue
				}
				played[v.Name] = true
				reply := r.once(t, string(v.Raw))
				wrong := v.judge(up.take(), reply, raw)
				if reason, left := leftVectors[v.Name]; left {
					if wrong == "" {
						t.Errorf("%s is done: take it off the list (%s)", v.Name, reason)
					}
					continue
				}
				if raw && rawVectors[v.Name] {
					continue
				}
				if wrong != "" {
					t.Errorf("%s (%s, %s): %s\n%q", v.Name, v.RFC, v.Why, wrong, v.Raw[:min(len(v.Raw), 400)])
				}
			}
			for name := range leftVectors {
				if len(played) > 0 && !played[name] {
					t.Errorf("there is no vector %s", name)
				}
			}
		})
	}
}

// semantic is a request and what may and may not become of it.
type semantic struct {
	Name    string
	Raw     []byte   `json:"raw_base64"`
	With    []string `json:"upstream_must_contain"`
	Without []string `json:"upstream_must_not_contain"`
	Reach   bool     `json:"reach_upstream"`
	Status  int      `json:"client_status"`
}

// leftSemantics need more than the edge.
var leftSemantics = map[string]string{
	"hop/connection-strips-ours/X-Consumer-Username": "needs an authentication plugin",
	"hop/connection-strips-ours/X-Request-Id":        "needs the request-id plugin",
	"trust/xff-append":                               "the list of an untrusted peer is dropped unless ServerOptions.KeepForwardedFor is set: TestForwardedLines",
	"trust/xff-ratelimit":                            "needs the limit-count plugin",
	"trust/real-ip-spoof":                            "needs the ip-restriction plugin; the client's address is a matter of TestForwardedLines",
	"trust/x-forwarded-port":                         "forbids the digit 1 anywhere in the request: TestForwardedLines",
	"identity/dup-apikey":                            "needs the key-auth plugin",
	"identity/dup-authorization":                     "needs the jwt-auth plugin",
	"identity/hide-credentials":                      "needs the key-auth plugin",
	"log/secrets":                                    "the upstream has to fail; the default format has neither query secrets nor credentials but for the request line",
	"log/injection":                                  "a control byte in a value is refused, so that it cannot come as far as a log: TestLogLine",
	"inject/redirect-crlf":                           "needs the redirect plugin",
}

// TestProxySemantics has a public route for everything and one that refuses every request below /admin.
func TestProxySemantics(t *testing.T) {
	up := newBackend(t, says(ok200))
	r := newGate(t, defaults()).to(up.addr)
	r.rewrite = func(x *phase.Exchange) phase.Verdict {
		x.AnswerError(401, "unauthorized")
		return phase.Stop
	}
	r.route("admin", `{"uris":["/admin","/admin/*"],"plugins":{"probe":{}},"upstream":{"nodes":{"`+up.addr+`":1}}}`)
	for _, v := range readVectors[semantic](t, "proxy-semantics.jsonl") {
		if leftSemantics[v.Name] != "" {
			continue
		}
		t.Run(v.Name, func(t *testing.T) {
			reply := r.once(t, string(v.Raw))
			got := up.take()
			if strings.HasPrefix(v.Name, "path/") {
				for _, m := range got {
					path, err := route.AppendNormalized(nil, []byte(m.target))
					if clean := string(path); err != nil || clean == "/admin" || strings.HasPrefix(clean, "/admin/") || strings.Contains(strings.ToLower(m.target), "%2e") {
						t.Errorf("%q reached the upstream", m.target)
					}
				}
				return
			}
			if v.Reach != (len(got) > 0) {
				t.Fatalf("reached the upstream: %t, answer %q", len(got) > 0, reply)
			}
			if v.Status != 0 && !strings.HasPrefix(reply, fmt.Sprintf("HTTP/1.1 %d ", v.Status)) && !strings.HasPrefix(reply, "HTTP/1.1 100 ") {
				t.Errorf("answer %q, want status %d", reply, v.Status)
			}
			for _, m := range got {
				head := strings.ToLower(m.head)
				for _, want := range v.With {
					if !strings.Contains(head, strings.ToLower(want)) {
						t.Errorf("the upstream saw no %q:\n%s", want, m.head)
					}
				}
				for _, not := range v.Without {
					if strings.Contains(head, strings.ToLower(not)) {
						t.Errorf("the upstream saw %q:\n%s", not, m.head)
					}
				}
			}
		})
	}
}
