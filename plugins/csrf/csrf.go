// Package csrf is the csrf plugin: it keeps other sites from acting in the name of a browser's user (contract section 4.4). Every answer
// sets a signed token as a cookie; a request that changes something must bring it along twice, as the cookie and in a header, which
// only a page of the same site can do (double submit).
package csrf

import (
	"bytes"
	"crypto/subtle"
	_ "embed"
	"errors"
	"time"
	"unsafe"

	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
)

//go:embed schema.json
var schemaJSON []byte

// Config is what the operator writes.
type Config struct {
	// Key signs the tokens. It is a secret, and no answer, log or error shows it.
	Key string
	// Expires is how many seconds a token lives; 0 or less: for ever.
	Expires int64
	// Name is that of the cookie and the header.
	Name string
}

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:      "csrf",
		Priority:  2980,
		Schema:    bytes.Clone(schemaJSON),
		Validate:  validate,
		Build:     build,
		Encrypted: []string{"key"},
	}
}

// maxExpires keeps the time at which a cookie ends within four digits of a year, in seconds.
const maxExpires = 100 * 365 * 24 * 3600

var (
	errName    = errors.New(`property "name" validation failed: not the name of a header`)
	errExpires = errors.New(`property "expires" validation failed: the number is too large`)
)

// read reads conf, which satisfies the schema.
func read(conf []byte) (c Config, err error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return c, err
	}
	doc, _ := v.(map[string]any)
	c.Key, _ = doc["key"].(string)
	c.Expires, c.Name = 7200, "apisix-csrf-token"
	if s, ok := doc["name"].(string); ok {
		c.Name = s
	}
	if n, ok := doc["expires"]; ok {
		if c.Expires, ok = split.Integer(n); !ok || c.Expires > maxExpires || c.Expires < -maxExpires {
			return c, errExpires
		}
	}
	if !wire.ValidName([]byte(c.Name)) {
		err = errName
	}
	return c, err
}

func validate(conf []byte) error {
	_, err := read(conf)
	return err
}

func build(conf []byte, _ phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	return &plugin{name: []byte(c.Name), signer: signer{[]byte(c.Key)}, expires: c.Expires}, nil
}

// plugin is immutable.
type plugin struct {
	name    []byte
	signer  signer
	expires int64
}

// Access implements phase.Accessor.
func (p *plugin) Access(x *phase.Exchange) phase.Verdict {
	switch string(x.Request.Method) {
	case "GET", "HEAD", "OPTIONS":
		return phase.Continue
	}
	if msg := p.refuse(x); msg != "" {
		x.AnswerError(401, msg)
		return phase.Stop
	}
	return phase.Continue
}

// refuse returns why the request may not pass, "" when it may.
func (p *plugin) refuse(x *phase.Exchange) string {
	name := unsafe.String(unsafe.SliceData(p.name), len(p.name)) // read only
	header, _ := x.Request.Header.Get(name)
	if len(header) == 0 {
		return "no csrf token in headers"
	}
	cookie, ok := x.Cookie(name, nil)
	switch {
	case !ok:
		return "no csrf cookie"
	case subtle.ConstantTimeCompare(header, cookie) != 1:
		return "csrf token mismatch"
	case !p.signer.valid(x, cookie, p.expires):
		return "Failed to verify the csrf token signature"
	}
	return ""
}

var nameSetCookie = []byte("Set-Cookie")

// Response implements phase.Responder: every answer sets a fresh token.
func (p *plugin) Response(x *phase.Exchange) {
	token := p.signer.token(x, x.Start)
	b := append(append(x.Arena(), p.name...), '=')
	b = append(append(b, token...), ";path=/;SameSite=Lax;Expires="...)
	b = appendCookieTime(b, x.Start.Add(time.Duration(p.expires)*time.Second))
	x.Response.Header.Add(nameSetCookie, x.Commit(b))
}

// appendCookieTime appends t as nginx writes it in cookies: with two digits of the year as long as they are clear.
func appendCookieTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	if t.Year() > 2037 {
		return t.AppendFormat(dst, "Mon, 02-Jan-2006 15:04:05 GMT")
	}
	return t.AppendFormat(dst, "Mon, 02-Jan-06 15:04:05 GMT")
}

var (
	_ phase.Accessor  = (*plugin)(nil)
	_ phase.Responder = (*plugin)(nil)
)
