package phase

import (
	"strings"
	"testing"

	"headgate/proxy/fault"
)

func TestMessageBody(t *testing.T) {
	for text, want := range map[string]string{
		"":             `{"message":""}`,
		`say "<no>&\"`: `{"message":"say \"<no>&\\\""}`,
		"a\r\nb\x00":   `{"message":"a\r\nb\u0000"}`,
		"é\xff":        "{\"message\":\"é\\ufffd\"}",
	} {
		if got := string(MessageBody("message", text)); got != want+"\n" {
			t.Errorf("%q: got %q", text, got)
		}
	}
}

func TestAnswer(t *testing.T) {
	stream := &countedStream{}
	x := &Exchange{}
	x.Begin(&Settings{})
	x.Response.Status, x.Response.Source = 200, FromUpstream
	x.Response.Stream, x.Response.Size, x.Response.HeadLength = stream, 10, 10
	x.Response.Header = *lines("X-Own: 1", "Content-Type: text/plain", "content-type: again")

	x.Answer(403, TypeJSON, []byte(`{}`))
	r := &x.Response
	if stream.closed != 1 || r.Stream != nil {
		t.Errorf("the stream that was replaced was closed %d times", stream.closed)
	}
	if r.Status != 403 || string(r.Body) != "{}" || r.Source != FromPlugin || r.Size != -1 || r.HeadLength != -1 {
		t.Errorf("got %+v", r)
	}
	if got := r.Header.text(); got != "X-Own: 1\nContent-Type: application/json\n" {
		t.Errorf("header:\n%s", got)
	}
	x.Answer(204, "", nil)
	if got := r.Header.text(); got != "X-Own: 1\n" || r.Body != nil || stream.closed != 1 {
		t.Errorf("header:\n%s body %q, closed %d", got, r.Body, stream.closed)
	}
}

func TestAnswerTexts(t *testing.T) {
	tests := []struct {
		name       string
		answer     func(x *Exchange)
		status     int
		kind, body string
		source     Source
	}{
		{"error", func(x *Exchange) { x.AnswerError(404, "404 Route Not Found") }, 404, TypeText, "{\"error_msg\":\"404 Route Not Found\"}\n", FromPlugin},
		{"page", func(x *Exchange) { x.AnswerPage(503) }, 503, TypeHTML, "<html>\r\n<head><title>503 Service Temporarily Unavailable</title></head>\r\n" +
			"<body>\r\n<center><h1>503 Service Temporarily Unavailable</h1></center>\r\n</body>\r\n</html>\r\n", FromPlugin},
		{"redirect", func(x *Exchange) { x.AnswerPage(302) }, 302, "text/html", "<html>\r\n<head><title>302 Found</title></head>\r\n" +
			"<body>\r\n<center><h1>302 Found</h1></center>\r\n</body>\r\n</html>\r\n", FromPlugin},
		{"status without a page", func(x *Exchange) { x.AnswerPage(499) }, 499, "", "", FromPlugin},
		{"fault", func(x *Exchange) { x.Fail(fault.BadRequest) }, 400, TypeHTML, "<html>\r\n<head><title>400 Bad Request</title></head>\r\n" +
			"<body>\r\n<center><h1>400 Bad Request</h1></center>\r\n</body>\r\n</html>\r\n", FromGateway},
		{"the last answer counts", func(x *Exchange) { x.Fail(fault.ConnectFailed); x.AnswerError(401, "no") }, 401, TypeText, "{\"error_msg\":\"no\"}\n", FromPlugin},
	}
	for _, tt := range tests {
		x := &Exchange{}
		x.Begin(&Settings{})
		kept := x.Keep([]byte("kept"))
		tt.answer(x)
		kind, _ := x.Response.Header.Get("content-type")
		if r := &x.Response; r.Status != tt.status || string(kind) != tt.kind || string(r.Body) != tt.body || r.Source != tt.source {
			t.Errorf("%s: %d %s %q %q", tt.name, r.Status, r.Source, kind, r.Body)
		}
		if string(kept) != "kept" {
			t.Errorf("%s: wrote over what was kept: %q", tt.name, kept)
		}
	}
}

// Every status that a fault stands for must have words for its page, but for the one that nobody is there to read.
func TestFaultsHavePages(t *testing.T) {
	for _, f := range fault.All() {
		if PageTitle(f.Status) == "" && f != fault.ClientGone {
			t.Errorf("%s: no page for %d", f.Code, f.Status)
		}
	}
	for status := range 1000 {
		if title := PageTitle(status); title != strings.TrimSpace(title) || strings.ContainsAny(title, "<>&\r\n") {
			t.Errorf("%d: %q", status, title)
		}
	}
}
