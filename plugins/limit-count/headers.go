package limitcount

import (
	"encoding/json"
	"strconv"
	"strings"

	"headgate/proxy/phase"
	"headgate/proxy/phase/limit"
	"headgate/proxy/phase/wire"
)

// headers are the names of the quota headers.
type headers struct{ limit, remaining, reset []byte }

// defaultNames are those without a plugin_metadata document.
func defaultNames() headers {
	h, _ := headerNames(nil)
	return h
}

// headerNames are the names that the plugin_metadata document gives, which may be nil. What is no name of a header is passed over.
func headerNames(metadata []byte) (h headers, err error) {
	names := struct {
		Limit     string `json:"limit_header"`
		Remaining string `json:"remaining_header"`
		Reset     string `json:"reset_header"`
	}{}
	if len(metadata) > 0 {
		if err = json.Unmarshal(metadata, &names); err != nil {
			return h, err
		}
	}
	for _, n := range [...]struct {
		to             *[]byte
		given, without string
	}{
		{&h.limit, names.Limit, "X-RateLimit-Limit"},
		{&h.remaining, names.Remaining, "X-RateLimit-Remaining"},
		{&h.reset, names.Reset, "X-RateLimit-Reset"},
	} {
		if *n.to = []byte(n.given); !wire.ValidName(*n.to) {
			*n.to = []byte(n.without)
		}
	}
	return h, nil
}

// with puts the prefix of a rule into the names: X-RateLimit-Limit becomes X-<prefix>-RateLimit-Limit.
func (h headers) with(prefix string) headers {
	if prefix == "" {
		return h
	}
	insert := func(name []byte) []byte {
		const base = "RateLimit-"
		return []byte(strings.Replace(string(name), base, prefix+"-"+base, 1))
	}
	return headers{insert(h.limit), insert(h.remaining), insert(h.reset)}
}

// set shows the quota to the client.
func (h *headers) set(x *phase.Exchange, count int64, q *limit.Quota) {
	r := &x.Response.Header
	r.Set(h.limit, x.Commit(strconv.AppendInt(x.Arena(), count, 10)))
	r.Set(h.remaining, x.Commit(strconv.AppendInt(x.Arena(), q.Remaining, 10)))
	r.Set(h.reset, x.Commit(appendSeconds(x.Arena(), q.Reset)))
}

// appendSeconds appends nanoseconds in seconds, with at most two decimals, which are not rounded up.
func appendSeconds(dst []byte, ns int64) []byte {
	hundredths := ns / 10_000_000
	dst = strconv.AppendInt(dst, hundredths/100, 10)
	switch tens, ones := byte('0'+hundredths/10%10), byte('0'+hundredths%10); {
	case ones != '0':
		dst = append(dst, '.', tens, ones)
	case tens != '0':
		dst = append(dst, '.', tens)
	}
	return dst
}
