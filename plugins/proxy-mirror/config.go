package proxymirror

import (
	"encoding/json"
	"errors"
	"net"
	"net/url"
	"strings"

	"headgate/conf/schema"
)

// config is what the operator writes (contract section 4.4, proxy-mirror).
type config struct {
	tls bool
	// host is a name or an address, addr has the port, too.
	host, addr string
	// path takes the place of the client's path, or, with prefix, comes before it; "" leaves it.
	path   string
	prefix bool
	// ratio is above 0 and at most 1.
	ratio float64
}

var (
	errGRPC = errors.New("property \"host\" validation failed: copies are sent over http or https; grpc and grpcs are not available")
	errHost = errors.New("property \"host\" validation failed: no address of a server")
	errPath = errors.New("property \"path\" validation failed: blanks, control characters and # cannot be in the path of a request")
)

func validate(conf []byte) error {
	_, err := read(conf)
	return err
}

// read reads conf, which satisfies the schema, and checks what the schema cannot say.
func read(conf []byte) (c config, err error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return c, err
	}
	doc, _ := v.(map[string]any)
	text, _ := doc["host"].(string)
	u, err := url.Parse(text)
	if err != nil {
		return c, errHost
	}
	port := u.Port()
	switch u.Scheme {
	case "http":
		if port == "" {
			port = "80"
		}
	case "https":
		c.tls = true
		if port == "" {
			port = "443"
		}
	case "grpc", "grpcs":
		return c, errGRPC
	default:
		return c, errHost
	}
	if c.host = u.Hostname(); c.host == "" || len(port) > 5 {
		return c, errHost
	}
	c.addr = net.JoinHostPort(c.host, port)
	c.path, _ = doc["path"].(string)
	if strings.ContainsFunc(c.path, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '#' }) {
		return c, errPath
	}
	mode, _ := doc["path_concat_mode"].(string)
	c.prefix = mode == "prefix"
	c.ratio = 1
	if n, ok := doc["sample_ratio"].(json.Number); ok {
		c.ratio, err = n.Float64()
	}
	return c, err
}
