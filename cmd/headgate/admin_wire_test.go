package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"headgate/conf"
)

// conversation is one file of testdata/admin: a few words, optionally "-- config --" and TOML as in the configuration file, then
// "-- steps --". A step is a request and the whole answer:
//
//	# a few words, if any
//	> PUT /apisix/admin/routes/1
//	Name: value of a header line, if any
//
//	the body, if any, as it is
//	< HTTP/1.1 201 Created\r\n
//	and the rest, written as in the other goldens
//
// A request goes to the Admin API, or to the listener whose name stands before the method: "> gateway GET /x", "> control GET
// /v1/routes", "> status GET /status", "> metrics ...". Requests to one listener share a connection until an answer ends it, which
// {{closed}} tells. Requests of the Admin API carry the admin key, all of them a Host and, where there is a body, its length; a step
// that has such a line replaces it, and leaves it out when the value is "-".
//
// In requests {{admin key}}, {{viewer key}}, {{server cert}}, {{server key}}, {{client cert}}, {{client key}} and {{ca}} stand for what
// they say, the last five as JSON writes the PEM text, {{id}} for the last id that the gateway has made, and {{x*9}} for nine times x. In
// answers {{date}}, {{time}}, {{id}}, {{sealed}} and the certificates stand for what differs or should not be looked at, {{any}} for any
// text; -update leaves an answer alone that still fits.
type conversation struct {
	file, words string
	config      string
	steps       []step
}

type step struct {
	line     int      // of the request in the file
	text     []string // the lines up to the answer, as they stand in the file
	listener string
	method   string
	target   string
	fields   []string
	body     string
	reply    string
}

const (
	configLine = "-- config --"
	stepsLine  = "-- steps --"
)

// adminConversations reads all files. They stand in directories by topic, one level deeper than the goldens of TestWire.
func adminConversations(t *testing.T) []*conversation {
	t.Helper()
	files, err := filepath.Glob("testdata/admin/*/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	all := make([]*conversation, len(files))
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if all[i], err = parseConversation(file, string(text)); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	return all
}

func parseConversation(file, text string) (*conversation, error) {
	head, steps, ok := strings.Cut(text, stepsLine+"\n")
	if !ok {
		return nil, fmt.Errorf("no line %q", stepsLine)
	}
	c := &conversation{file: file}
	c.words, c.config, _ = strings.Cut(head, configLine+"\n")
	if strings.TrimSpace(c.words) == "" {
		return nil, errors.New("every file says what it is about")
	}
	number := strings.Count(head, "\n") + 1
	var s *step
	asked, inReply := true, false // the line of the request was there, that of the answer too
	for line := range strings.Lines(steps) {
		number++
		plain := strings.TrimSuffix(line, "\n")
		request := strings.HasPrefix(line, "> ")
		switch {
		case asked && (request || strings.HasPrefix(line, "# ")):
			c.steps = append(c.steps, step{line: number, text: []string{plain}})
			s, asked, inReply = &c.steps[len(c.steps)-1], request, false
		case s == nil && plain == "":
		case s == nil:
			return nil, fmt.Errorf("line %d: a step starts with %q", number, "> ")
		case strings.HasPrefix(line, "< ") && !inReply:
			s.reply, inReply = line[2:], true
		case inReply:
			s.reply += line
		default:
			s.text = append(s.text, plain)
			asked = asked || request
		}
	}
	for i := range c.steps {
		s := &c.steps[i]
		s.reply = strings.TrimRight(s.reply, "\n") + "\n"
		if err := s.parse(); err != nil {
			return nil, fmt.Errorf("line %d: %w", s.line, err)
		}
	}
	return c, nil
}

// parse takes the lines of the request apart.
func (s *step) parse() error {
	lines := s.text
	for len(lines) > 0 && strings.HasPrefix(lines[0], "# ") {
		lines = lines[1:]
		s.line++
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	if len(lines) == 0 {
		return errors.New("words without a request")
	}
	s.listener = "admin"
	what := strings.TrimPrefix(lines[0], "> ")
	if first, rest, _ := strings.Cut(what, " "); slices.Contains([]string{"gateway", "control", "status", "metrics"}, first) {
		s.listener, what = first, rest
	}
	var ok bool
	if s.method, s.target, ok = strings.Cut(what, " "); !ok {
		return fmt.Errorf("not a method and a path: %s", lines[0])
	}
	end := slices.Index(lines, "")
	if end < 0 {
		s.fields = lines[1:]
		return nil
	}
	s.fields, s.body = lines[1:end], strings.Join(lines[end+1:], "\n")
	return nil
}

// save writes the file with replies in the place of the expectations.
func (c *conversation) save(t *testing.T, replies []string) {
	t.Helper()
	var b strings.Builder
	b.WriteString(c.words)
	if c.config != "" {
		b.WriteString(configLine + "\n" + c.config)
	}
	b.WriteString(stepsLine + "\n")
	for i, s := range c.steps {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(strings.TrimRight(strings.Join(s.text, "\n"), "\n"))
		b.WriteString("\n< " + replies[i])
	}
	if err := os.WriteFile(c.file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// fits says whether the answer is the expected one.
func (s *step) fits(reply string) bool {
	parts := strings.Split(s.reply, "{{any}}")
	if len(parts) == 1 {
		return reply == s.reply
	}
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(`\A(?s:` + strings.Join(parts, ".*?") + `)\z`).MatchString(reply)
}

// TestAdminWire plays the conversations with the Admin API, each with a gateway of its own: what is sent, and byte for byte what comes
// back.
func TestAdminWire(t *testing.T) {
	all := adminConversations(t)
	steps := 0
	for _, c := range all {
		steps += len(c.steps)
	}
	if steps < 150 {
		t.Errorf("%d steps, expected at least 150", steps)
	}
	for _, c := range all {
		t.Run(strings.TrimSuffix(strings.TrimPrefix(c.file, "testdata/admin/"), ".txt"), func(t *testing.T) {
			talk := newTalk(t, c)
			replies := make([]string, len(c.steps))
			for i, s := range c.steps {
				got := talk.play(s)
				replies[i] = got
				switch {
				case s.fits(got):
					replies[i] = s.reply
				case !*update:
					t.Errorf("%s:%d\n%s\n-- got --\n%s-- want --\n%s", c.file, s.line, s.text[0], got, s.reply)
				}
			}
			if *update {
				c.save(t, replies)
			}
		})
	}
}

// TestAdminWireTexts sees to it that the conversations show every text of contract sections 1.1 to 1.10, one for each template of the
// schema errors included. Texts that nothing can cause here are not listed: those for a store that is away, and for what no schema says.
func TestAdminWireTexts(t *testing.T) {
	var b strings.Builder
	for _, c := range adminConversations(t) {
		for _, s := range c.steps {
			b.WriteString(strings.ReplaceAll(s.reply, `\\"`, `"`))
		}
	}
	replies := b.String()
	texts, err := os.ReadFile("testdata/admin/contract.texts")
	if err != nil {
		t.Fatal(err)
	}
	for text := range strings.Lines(string(texts)) {
		if text = strings.TrimSuffix(text, "\n"); !strings.Contains(replies, text) {
			t.Errorf("no answer says %s", text)
		}
	}
}

// talk is a gateway and the connections to its listeners.
type talk struct {
	t      *testing.T
	gate   *gate
	conns  map[string]*talkConn
	names  *strings.Replacer // of placeholders, by what they stand for
	masks  *strings.Replacer // the other way round
	lastID string
}

func newTalk(t *testing.T, c *conversation) *talk {
	t.Helper()
	secrets := []string{"{{admin key}}", adminKey, "{{viewer key}}", viewerKey}
	secrets = append(secrets, talkCertificates(t)...)
	reverse := slices.Clone(secrets)
	slices.Reverse(reverse)
	k := &talk{t: t, conns: map[string]*talkConn{}, names: strings.NewReplacer(secrets...), masks: strings.NewReplacer(reverse...)}
	config, err := conf.Parse(filepath.Base(c.file), []byte(c.config), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if config.Status.Enabled {
		config.Status.Listen = "127.0.0.1:0"
	}
	k.gate = startGate(t, onLoopback(t, config))
	t.Cleanup(func() {
		for _, c := range k.conns {
			c.Close()
		}
	})
	return k
}

// talkCertificates returns pairs of placeholder and PEM text as JSON writes it. Keys and signatures follow from fixed seeds, so that
// lengths are the same every time.
func talkCertificates(t *testing.T) []string {
	t.Helper()
	key := func(seed string) ed25519.PrivateKey {
		return ed25519.NewKeyFromSeed([]byte(strings.Repeat(seed, ed25519.SeedSize)))
	}
	text := func(kind string, der []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})), "\n", `\n`)
	}
	authority := key("a")
	template := func(name string, ca bool) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
			NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0), IsCA: ca, BasicConstraintsValid: true,
		}
	}
	pairs := []string{}
	for _, of := range []struct{ name, seed string }{{"server", "s"}, {"client", "c"}} {
		private := key(of.seed)
		cert, err := x509.CreateCertificate(nil, template(of.name+".test", false), template("ca.test", true), private.Public(), authority)
		pairs = append(pairs, "{{"+of.name+" cert}}", text("CERTIFICATE", cert, err))
		der, err := x509.MarshalPKCS8PrivateKey(private)
		pairs = append(pairs, "{{"+of.name+" key}}", text("PRIVATE KEY", der, err))
	}
	ca, err := x509.CreateCertificate(nil, template("ca.test", true), template("ca.test", true), authority.Public(), authority)
	return append(pairs, "{{ca}}", text("CERTIFICATE", ca, err))
}

// play sends the request of a step and returns the answer as it is written in the file.
func (k *talk) play(s step) string {
	k.t.Helper()
	c := k.conns[s.listener]
	if c == nil {
		addr := k.gate.addr
		if s.listener != "gateway" {
			addr = k.gate.process.addr(s.listener)
		}
		c = dialTalk(k.t, addr)
		k.conns[s.listener] = c
	}
	raw, open, err := c.exchange(s.method, k.request(s))
	if err != nil {
		k.t.Fatalf("line %d: %s %s: %v, got %q", s.line, s.method, s.target, err, raw)
	}
	reply := k.written(raw, s.method == http.MethodPost)
	if !open {
		c.Close()
		delete(k.conns, s.listener)
		reply += "{{closed}}\n"
	}
	return reply
}

var repeated = regexp.MustCompile(`\{\{(.)\*(\d+)\}\}`)

// request is the bytes of a step's request.
func (k *talk) request(s step) string {
	fill := func(text string) string {
		text = strings.ReplaceAll(k.names.Replace(text), "{{id}}", k.lastID)
		return repeated.ReplaceAllStringFunc(text, func(of string) string {
			m := repeated.FindStringSubmatch(of)
			n, _ := strconv.Atoi(m[2])
			return strings.Repeat(m[1], n)
		})
	}
	body := fill(s.body)
	defaults := [][2]string{{"Host", "localhost"}}
	if s.listener == "admin" {
		defaults = append(defaults, [2]string{"X-API-KEY", adminKey})
	}
	if body != "" {
		defaults = append(defaults, [2]string{"Content-Length", strconv.Itoa(len(body))})
	}
	var fields []string
	for _, d := range defaults {
		if !slices.ContainsFunc(s.fields, func(f string) bool { return strings.HasPrefix(f, d[0]+": ") }) {
			fields = append(fields, d[0]+": "+d[1])
		}
	}
	for _, f := range s.fields {
		if !strings.HasSuffix(f, ": -") {
			fields = append(fields, fill(f))
		}
	}
	return s.method + " " + fill(s.target) + " HTTP/1.1\r\n" + strings.Join(fields, "\r\n") + "\r\n\r\n" + body
}

var (
	talkTime   = regexp.MustCompile(`((?:create_time|update_time|X-Last-Modified)"?(?: =|:) ?)\d{10}\b`)
	madeID     = regexp.MustCompile(`\b\d{20}\b`)
	sealedText = regexp.MustCompile(`[A-Za-z0-9+/]{120,}={0,2}`)
	lineStart  = regexp.MustCompile(`(?m)^[>#]`)
)

// written masks an answer. Of one to a POST it remembers the id.
func (k *talk) written(raw string, made bool) string {
	if id := madeID.FindString(raw); made && id != "" {
		k.lastID = id
	}
	text := writtenText(dateLine.ReplaceAllString(k.masks.Replace(raw), "Date: {{date}}\r"))
	text = lineStart.ReplaceAllStringFunc(text, func(c string) string { return fmt.Sprintf(`\x%02x`, c) })
	text = talkTime.ReplaceAllString(text, "${1}{{time}}")
	return sealedText.ReplaceAllString(madeID.ReplaceAllString(text, "{{id}}"), "{{sealed}}")
}

// talkConn is a connection that keeps the bytes of the answer.
type talkConn struct {
	net.Conn
	in  *bufio.Reader
	got bytes.Buffer
}

func dialTalk(t *testing.T, addr string) *talkConn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	c := &talkConn{Conn: conn}
	c.in = bufio.NewReader(io.TeeReader(conn, &c.got))
	return c
}

// exchange sends a request and returns the bytes of the answer, and whether the connection can be used again.
func (c *talkConn) exchange(method, request string) (raw string, open bool, err error) {
	c.got.Reset()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", false, err
	}
	if _, err := io.WriteString(c, request); err != nil {
		return "", false, err
	}
	res, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		return c.got.String(), false, err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return c.got.String(), false, err
	}
	if n := c.in.Buffered(); n > 0 {
		return c.got.String(), false, fmt.Errorf("%d bytes follow the answer", n)
	}
	return c.got.String(), !res.Close, nil
}
