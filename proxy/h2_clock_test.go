package proxy

import (
	"io"
	"net/http"
	"testing"
	"time"

	"headgate/proxy/phase"
)

// A pause of the upstream is not one of the client: the clock of a write runs while there is something to take.
func TestHTTP2PauseInAnswer(t *testing.T) {
	up := newPaced(t, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
	o := defaults()
	o.WriteTimeout = 500 * time.Millisecond
	r := newH2Gate(t, o, up.backend)
	res, err := r.speaker(t).Get("https://a.test/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	buf := make([]byte, 2)
	for range 2 {
		up.pieces <- "ab"
		if _, err := io.ReadFull(res.Body, buf); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * o.WriteTimeout)
	}
	up.pieces <- "cd"
	close(up.pieces)
	if got, err := io.ReadAll(res.Body); err != nil || string(got) != "cd" {
		t.Errorf("after a pause %q, %v", got, err)
	}
}

// Nor is time in which nobody asks for the body: an upstream that takes no more for a while.
func TestHTTP2PauseOfReader(t *testing.T) {
	o := defaults()
	o.BodyTimeout = 500 * time.Millisecond
	r := newH2Gate(t, o, newBackend(t, says(ok200)))
	from, to := io.Pipe()
	r.rewrite = func(x *phase.Exchange) phase.Verdict {
		two := make([]byte, 2)
		for i := range 3 {
			if _, err := io.ReadFull(x.Request.Incoming, two); err != nil {
				t.Errorf("piece %d: %v", i, err)
				break
			}
			time.Sleep(2 * o.BodyTimeout)
			go func() { _, _ = io.WriteString(to, "ab") }() // the client does not pause while it is asked
		}
		x.Answer(http.StatusOK, "", []byte("done"))
		return phase.Stop
	}
	r.to("", "probe")
	go func() { _, _ = io.WriteString(to, "ab") }()
	res, got, err := ask(t, r.speaker(t), "POST", "/", from)
	if err != nil || res.StatusCode != 200 || got != "done" {
		t.Errorf("%v %q, %v", res, got, err)
	}
	_ = from.Close()
}
