package proxy

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"testing"
)

// readMessages reads testdata/messages.jsonl: vectors in the form of those in the shared test data, except that raw and content are texts of
// which each character is a byte.
func readMessages(t *testing.T) []vector {
	t.Helper()
	file, err := os.Open("testdata/messages.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	list := decodeVectors[vector](t, file)
	names := map[string]bool{}
	for i := range list {
		v := &list[i]
		if names[v.Name] {
			t.Errorf("%s is there twice", v.Name)
		}
		names[v.Name] = true
		v.Raw = latin1(v.Text)
		for n := range v.Messages {
			m := &v.Messages[n]
			content := latin1(m.Content)
			sum := sha256.Sum256(content)
			m.Len, m.Body = len(content), hex.EncodeToString(sum[:8])
		}
	}
	return list
}

func latin1(text string) (b []byte) {
	for _, c := range text {
		b = append(b, byte(c))
	}
	return b
}

// TestMessages plays the project's own requests and answers, whatever else is at hand.
func TestMessages(t *testing.T) {
	list := readMessages(t)
	requests, answers := playRequests(t, list, false), playAnswers(t, list)
	t.Logf("requests: %s", requests)
	t.Logf("answers: %s", answers)
	if len(list) < 60 || requests.all["accept"] < 30 || requests.all["must_reject"] < 30 || requests.all["should_reject"] < 20 ||
		requests.all["may_accept"] < 10 || requests.all["incomplete"] < 8 || answers.all["accept"] < 10 || answers.all["truncated"] < 8 {
		t.Errorf("of the %d messages some are missing", len(list))
	}
}

// TestMessageTargets: where valid requests go, word for word.
func TestMessageTargets(t *testing.T) {
	up := newBackend(t, says(ok200))
	r := newGate(t, defaults()).to(up.addr).route("server", `{"uri":"*","on_client_abort":"finish","upstream":{"nodes":{"`+up.addr+`":1}}}`)
	for _, v := range readMessages(t) {
		if v.Expect != "accept" || v.Side != "request" {
			continue
		}
		r.once(t, string(v.Raw))
		got := up.take()
		for i, m := range v.Messages {
			if i >= len(got) || got[i].target != m.Target {
				t.Errorf("%s: %q went to the upstream, want %s", v.Name, got, m.Target)
			}
		}
	}
}
