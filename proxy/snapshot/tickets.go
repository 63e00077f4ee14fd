package snapshot

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// ticketsFor is how long a key encrypts session tickets, ticketsUntil how long it opens them, both from when it was drawn. A ticket is of
	// no use for longer than seven days anyhow (RFC 8446 section 4.6.1).
	ticketsFor   = 24 * time.Hour
	ticketsUntil = 7 * 24 * time.Hour
	// maxTicketKeys is more than are drawn in that time.
	maxTicketKeys = 16
)

// Tickets are the keys of session tickets. They are drawn here, replaced daily, and leave the process for one that takes over from it only.
type Tickets struct {
	config tls.Config   // which keys can be changed while it is in use
	due    atomic.Int64 // when the next key is to be drawn, in seconds since 1970
	now    func() time.Time

	mu   sync.Mutex
	keys []ticketKey // newest first
}

// ticketKey is one key. Its form in JSON is what processes hand to each other.
type ticketKey struct {
	Key   [32]byte  `json:"key"`
	Drawn time.Time `json:"drawn"`
}

func newTickets() *Tickets { return &Tickets{now: time.Now} }

// encrypt is a tls.Config.WrapSession.
func (t *Tickets) encrypt(cs tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
	if t.now().Unix() >= t.due.Load() {
		t.rotate()
	}
	return t.config.EncryptTicket(cs, s)
}

// decrypt is a tls.Config.UnwrapSession.
func (t *Tickets) decrypt(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
	if t.due.Load() == 0 { // none was given out
		return nil, nil
	}
	return t.config.DecryptTicket(ticket, cs)
}

// rotate draws a key if the last one is too old, and forgets those that open nothing any more.
func (t *Tickets) rotate() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := t.now(); now.Unix() >= t.due.Load() {
		k := ticketKey{Drawn: now}
		_, _ = rand.Read(k.Key[:]) // it never fails
		t.use(append([]ticketKey{k}, t.keys...))
	}
}

// use makes keys those in use. t.mu is held.
func (t *Tickets) use(keys []ticketKey) {
	now := t.now()
	t.keys = t.keys[:0:0]
	var raw [][32]byte
	for _, k := range keys {
		if now.Sub(k.Drawn) < ticketsUntil && len(raw) < maxTicketKeys {
			t.keys, raw = append(t.keys, k), append(raw, k.Key)
		}
	}
	if len(raw) > 0 {
		t.config.SetSessionTicketKeys(raw)
		t.due.Store(t.keys[0].Drawn.Add(ticketsFor).Unix())
	}
}

// Secrets returns the keys for a process that takes over, nil when there are none. They open every session of the last seven days: nobody
// else may see them.
func (t *Tickets) Secrets() (json.RawMessage, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.keys) == 0 {
		return nil, nil
	}
	return json.Marshal(t.keys)
}

var errTicketKeys = errors.New("keys of session tickets that are none")

// Adopt takes over what Secrets has returned, in place of what is in use. After an error nothing has changed. Errors show no byte of a key.
func (t *Tickets) Adopt(secrets json.RawMessage) error {
	var keys []ticketKey
	if err := json.Unmarshal(secrets, &keys); err != nil {
		return fmt.Errorf("%w: %T", errTicketKeys, err) // its text may quote what it has read
	}
	now := t.now()
	for i, k := range keys {
		if k.Key == [32]byte{} || k.Drawn.After(now.Add(time.Minute)) || i > 0 && k.Drawn.After(keys[i-1].Drawn) {
			return errTicketKeys
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.use(keys)
	return nil
}
