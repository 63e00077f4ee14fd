package snapshot

import (
	"crypto/tls"
	"encoding/json"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// session returns the state of a session that a handshake has just made.
func session(t *testing.T) (made *tls.SessionState) {
	t.Helper()
	i := issue(t, nil, false, "a.test")
	pair, err := tls.X509KeyPair([]byte(i.cert), []byte(i.key))
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	client := tls.Client(near, &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1)}) // #nosec G402
	ended := make(chan error, 1)
	go func() { ended <- client.Handshake() }()
	server := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{pair}, MaxVersion: tls.VersionTLS12, MinVersion: tls.VersionTLS12,
		WrapSession: func(_ tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
			made = s
			return []byte("ticket"), nil
		}})
	if err := server.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil || made == nil {
		t.Fatal(made, err)
	}
	return made
}

// ticketing are Tickets whose clock the test moves.
func ticketing() (tk *Tickets, at *time.Time) {
	at = new(time.Time)
	*at = time.Unix(1_700_000_000, 0)
	tk = newTickets()
	tk.now = func() time.Time { return *at }
	return tk, at
}

func (t *Tickets) opens(ticket []byte) bool {
	s, err := t.decrypt(ticket, tls.ConnectionState{})
	return s != nil && err == nil
}

func TestTicketKeysRotate(t *testing.T) {
	tk, at := ticketing()
	s := session(t)
	if tk.opens([]byte(strings.Repeat("x", 200))) {
		t.Error("it opens what it has not made")
	}
	var made [][]byte
	for day := range 12 {
		for range 2 { // twice a day
			ticket, err := tk.encrypt(tls.ConnectionState{}, s)
			if err != nil {
				t.Fatal(err)
			}
			made = append(made, ticket)
			*at = at.Add(12 * time.Hour)
		}
		if len(tk.keys) != min(day+1, 7) {
			t.Errorf("day %d: %d keys", day, len(tk.keys))
		}
	}
	if _, err := tk.encrypt(tls.ConnectionState{}, s); err != nil { // the keys of the day
		t.Fatal(err)
	}
	for i, ticket := range made {
		if age := 12 - i/2; tk.opens(ticket) != (age < 7) {
			t.Errorf("a ticket under a key of %d days: %t", age, tk.opens(ticket))
		}
	}
}

func TestTicketKeysAreHandedOver(t *testing.T) {
	old, at := ticketing()
	s := session(t)
	if secrets, err := old.Secrets(); secrets != nil || err != nil {
		t.Errorf("%s, %v", secrets, err)
	}
	first, _ := old.encrypt(tls.ConnectionState{}, s)
	*at = at.Add(25 * time.Hour)
	second, _ := old.encrypt(tls.ConnectionState{}, s)
	secrets, err := old.Secrets()
	if err != nil {
		t.Fatal(err)
	}
	next, now := ticketing()
	*now = at.Add(time.Hour)
	own, _ := next.encrypt(tls.ConnectionState{}, s)
	if next.opens(first) {
		t.Error("a stranger's ticket is opened")
	}
	if err := next.Adopt(secrets); err != nil {
		t.Fatal(err)
	}
	if !next.opens(first) || !next.opens(second) || next.opens(own) {
		t.Error("it opens others than its predecessor")
	}
	third, _ := next.encrypt(tls.ConnectionState{}, s)
	if !old.opens(third) { // it drains, and may meet the client once more
		t.Error("the predecessor does not open what its successor makes")
	}
	*now = now.Add(6 * 24 * time.Hour)
	if _, err = next.encrypt(tls.ConnectionState{}, s); err != nil || next.opens(first) || !next.opens(second) {
		t.Errorf("keys do not age with the process: %v", err)
	}
	before := len(next.keys)
	for _, wrong := range []string{
		"", "null?", `{"key":1}`, `[{"key":[0]}]`, `[{"key":[0],"drawn":"2020-01-01T00:00:00Z"}]`,
		strings.Replace(string(secrets), `"drawn":"20`, `"drawn":"21`, 1), `[{"key":"c2VjcmV0"}]`,
	} {
		if err := next.Adopt(json.RawMessage(wrong)); err == nil || strings.Contains(err.Error(), "c2VjcmV0") || len(next.keys) != before {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

func TestTicketKeysAtOnce(t *testing.T) {
	tk := newTickets()
	s := session(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 50 {
				ticket, err := tk.encrypt(tls.ConnectionState{}, s)
				if err != nil || !tk.opens(ticket) {
					t.Error("a ticket is not opened", err)
					return
				}
				if i == 0 && j%5 == 0 {
					tk.due.Store(1) // the next one draws a key
				}
			}
		})
	}
	all.Wait()
	if len(tk.keys) > maxTicketKeys {
		t.Errorf("%d keys", len(tk.keys))
	}
}
