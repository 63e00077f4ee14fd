package proxy

import (
	"io"
	"strings"
	"testing"

	"headgate/proxy/fault"
)

// TestCutEvents: a stream of events that is cut tells its client so in the form that it knows, and is cut all the same.
func TestCutEvents(t *testing.T) {
	const (
		sse    = "Content-Type: text/event-stream; charset=utf-8\r\n"
		openAI = `data: {"error":{"message":"the upstream has broken off its answer","type":"server_error","param":null,"code":"body_cut"}}` + "\n\n"
		whole  = "data: {\"a\":1}\n\n"
	)
	for _, tt := range []struct{ name, target, head, body, want string }{
		{"chat", "/v1/chat/completions", sse, whole, whole + openAI},
		{"nothing yet", "/v1/chat/completions", sse, "", openAI},
		{"CRLF", "/v1/chat/completions", sse, "data: 1\r\n\r\n", "data: 1\r\n\r\n" + openAI},
		{"between lines", "/v1/chat/completions", sse, "data: 1\n", "data: 1\nevent: error\n" + openAI},
		{"in a line", "/v1/chat/completions", sse, whole + "data: {\"a", whole + "data: {\"a\nevent: error\n" + openAI},
		{"messages", "/v1/messages", sse, whole, whole + `event: error` + "\n" + `data: {"type":"error","error":{"type":"api_error","message":"the upstream has broken off its answer"}}` + "\n\n"},
		{"responses", "/v1/responses", sse, whole, whole + `event: error` + "\n" + `data: {"type":"error","code":"body_cut","message":"the upstream has broken off its answer","param":null}` + "\n\n"},
		{"Gemini", "/v1beta/models/m:streamGenerateContent", sse, whole, whole + `data: {"error":{"code":502,"message":"the upstream has broken off its answer","status":"UNAVAILABLE"}}` + "\n\n"},
		{"anything else", "/events", sse, whole, whole + "event: error\n" + openAI},
		{"no events", "/v1/chat/completions", "Content-Type: text/plain\r\n", "abc", "abc"},
		{"encoded", "/v1/chat/completions", sse + "Content-Encoding: gzip\r\n", "abc", "abc"},
		{"of known length", "/v1/chat/completions", sse + "Content-Length: 100000\r\n", whole, whole},
	} {
		t.Run(tt.name, func(t *testing.T) {
			head, pieces := "HTTP/1.1 200 OK\r\n"+tt.head, []string{tt.body}
			if !strings.Contains(tt.head, "Content-Length") {
				head += "Transfer-Encoding: chunked\r\n"
				pieces = []string{chunkOf(tt.body)}
			}
			up := newPaced(t, head+"\r\n")
			r := newGate(t, defaults()).to(up.addr)
			c := r.dial(t).say("POST " + tt.target + " HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
			for _, p := range pieces {
				up.pieces <- p
			}
			close(up.pieces)
			_, got, err := c.reply("POST")
			if err != io.ErrUnexpectedEOF || got != tt.want {
				t.Errorf("got %q, %v; want %q and an error", got, err, tt.want)
			}
			if n := r.faults("body_cut"); n != 1 {
				t.Errorf("body_cut was counted %v times", n)
			}
		})
	}
}

func chunkOf(s string) string {
	if s == "" {
		return ""
	}
	c, _ := strings.CutSuffix(chunked(s, len(s)), "0\r\nX-Sum: 1\r\n\r\n")
	return c
}

func TestEventTail(t *testing.T) {
	for in, want := range map[string]bool{"": true, "a": false, "\n": false, "a\n": false, "a\n\n": true, "a\r\n\r\n": true, "a\r\r": true, "a\n\r\n": true, "a\r\n": false} {
		for step := 1; step <= len(in)+1; step++ {
			var tail eventTail
			for at := 0; at < len(in); at += step {
				tail.note([]byte(in[at:min(at+step, len(in))]))
			}
			if got := tail.between(); got != want {
				t.Errorf("%q in pieces of %d: %t", in, step, got)
			}
		}
	}
}

// TestErrorEventOfTimeouts: a client may want to know that time was the reason.
func TestErrorEventOfTimeouts(t *testing.T) {
	for path, want := range map[string]string{"/v1/messages": `"timeout_error"`, "/x:streamGenerateContent": `"DEADLINE_EXCEEDED"`, "/chat/completions": `"read_timeout"`} {
		if got := string(appendErrorEvent(nil, []byte(path), fault.ReadTimeout, false)); !strings.Contains(got, want) {
			t.Errorf("%s: %s", path, got)
		}
	}
}
