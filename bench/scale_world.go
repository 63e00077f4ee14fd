package main

import (
	"bytes"
	"fmt"
	"strconv"
)

// world is a configuration of any size, made up by number: routes on many
// hosts, half of them exact paths and half prefixes, and consumers with keys.
type world struct {
	Routes    int  `json:"routes"`
	Hosts     int  `json:"hosts"`
	Consumers int  `json:"consumers"`
	Plugins   bool `json:"plugins"` // three on each route
	upstream  string
	key       string // of the Admin API
}

const (
	scaleUpstreams = 1000 // documents that the routes share; all have the one simulator as their node
	// stride visits routes and consumers in an order that no cache expects. It is prime, so that all are visited.
	stride = 7919
)

// pick returns the n-th of count things in the order of visits.
func pick(n uint64, count int) int { return int(n * stride % uint64(count)) }

// path is where route i is found below its host. Exact paths have a query-free
// form of their own; prefixes are asked for with something behind them.
func (w *world) path(i int) (pattern, asked string) {
	j := i / w.Hosts
	if j%2 == 0 {
		p := fmt.Sprintf("/api/v1/resource%d", j)
		return p, p
	}
	return fmt.Sprintf("/service%d/*", j), fmt.Sprintf("/service%d/some/thing", j)
}

func (w *world) host(i int) string { return fmt.Sprintf("h%05d.example.com", i%w.Hosts) }

// route appends the document of route i. Another version is another header on
// the way back with plugins, and another description without.
func (w *world) route(b []byte, i, version int) []byte {
	pattern, _ := w.path(i)
	b = fmt.Appendf(b, `{"id":"r%d","uri":%q,"host":%q,"upstream_id":"u%d"`, i, pattern, w.host(i), i%scaleUpstreams)
	if !w.Plugins {
		if version > 0 {
			b = fmt.Appendf(b, `,"desc":"%d"`, version)
		}
		return append(b, '}')
	}
	return fmt.Appendf(b, `,"plugins":{"limit-count":{"count":1000000,"time_window":60,"rejected_code":429,"key":"remote_addr"},`+
		`"proxy-rewrite":{"headers":{"set":{"X-Route":"r%d"}}},"response-rewrite":{"headers":{"set":{"X-Edit":"%d"}}}}}`, i, version)
}

// consumer appends the document of consumer i.
func (w *world) consumer(b []byte, i, version int) []byte {
	return fmt.Appendf(b, `{"username":"c%d","desc":"%d","plugins":{"key-auth":{"key":%q}}}`, i, version, consumerKey(i))
}

func consumerKey(i int) string { return fmt.Sprintf("key-of-consumer-%08d", i) }

// each calls add with the store's key and the document of everything there is,
// what is referred to first. The document is valid until add returns.
func (w *world) each(add func(key string, doc []byte)) {
	var b []byte
	for i := range scaleUpstreams {
		b = fmt.Appendf(b[:0], `{"id":"u%d","type":"roundrobin","nodes":{%q:1}}`, i, w.upstream)
		add("upstreams/u"+strconv.Itoa(i), b)
	}
	for i := range w.Consumers {
		b = w.consumer(b[:0], i, 0)
		add("consumers/c"+strconv.Itoa(i), b)
	}
	if w.Consumers > 0 {
		b = fmt.Appendf(b[:0], `{"id":"auth","uri":"/auth","upstream_id":"u0","plugins":{"key-auth":{}}}`)
		add("routes/auth", b)
	}
	for i := range w.Routes {
		b = w.route(b[:0], i, 0)
		add("routes/r"+strconv.Itoa(i), b)
	}
}

// configs is the whole configuration as the body of PUT configs.
func (w *world) configs() []byte {
	lists := map[string]*bytes.Buffer{}
	w.each(func(key string, doc []byte) {
		kind, _, _ := bytes.Cut([]byte(key), []byte("/"))
		list := lists[string(kind)]
		if list == nil {
			list = new(bytes.Buffer)
			lists[string(kind)] = list
		} else {
			list.WriteByte(',')
		}
		list.Write(doc)
	})
	out := bytes.NewBufferString("{")
	for kind, list := range lists {
		if out.Len() > 1 {
			out.WriteByte(',')
		}
		fmt.Fprintf(out, "%q:[%s]", kind, list.Bytes())
	}
	out.WriteByte('}')
	return out.Bytes()
}

// ask appends a request that route i serves.
func (w *world) ask(b []byte, i int) []byte {
	_, path := w.path(i)
	return fmt.Appendf(b, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, w.host(i))
}

// askAs appends a request of consumer i.
func (w *world) askAs(b []byte, i int) []byte {
	return fmt.Appendf(b, "GET /auth HTTP/1.1\r\nHost: x\r\nApikey: %s\r\n\r\n", consumerKey(i))
}

// edit appends the write of another version of route i.
func (w *world) edit(b []byte, i, version int) []byte {
	var buf [1 << 10]byte
	return w.put(b, fmt.Sprintf("routes/r%d", i), w.route(buf[:0], i, version))
}

// editConsumer appends the write of another version of consumer i.
func (w *world) editConsumer(b []byte, i, version int) []byte {
	var buf [1 << 10]byte
	return w.put(b, "consumers", w.consumer(buf[:0], i, version))
}

func (w *world) put(b []byte, path string, doc []byte) []byte {
	b = fmt.Appendf(b, "PUT /apisix/admin/%s HTTP/1.1\r\nHost: x\r\nX-API-KEY: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		path, w.key, len(doc))
	return append(b, doc...)
}
