package faultinjection

import (
	"encoding/json"
	"time"

	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/proxy/phase/headerline"
)

// Config is what the operator writes. One of the two is there.
type Config struct {
	Delay *Delay
	Abort *Abort
}

// Choice says which requests are meant.
type Choice struct {
	// Percentage of the requests, drawn at random; the default is 100.
	Percentage int
	// Vars are expressions of which one must hold; nil: no condition.
	Vars []any
}

// Delay makes requests wait. It comes before Abort.
type Delay struct {
	Choice
	// Duration is an hour at most.
	Duration time.Duration
}

// Abort answers requests.
type Abort struct {
	Choice
	Status int
	// Body is a template; nil: the page of Status.
	Body *string
	// Headers are lines by their names; values are templates.
	Headers map[string]string
}

// maxDelay is longer than any client waits, in seconds.
const maxDelay = 3600

// read reads conf, which satisfies the schema.
func read(conf []byte) (c Config, err error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return c, err
	}
	doc, _ := v.(map[string]any)
	if d, ok := doc["delay"].(map[string]any); ok {
		seconds := 0.0
		if n, ok := d["duration"].(json.Number); ok {
			seconds, _ = n.Float64()
		}
		c.Delay = &Delay{readChoice(d), time.Duration(min(seconds, maxDelay) * float64(time.Second))}
	}
	if a, ok := doc["abort"].(map[string]any); ok {
		status, _ := split.Integer(a["http_status"])
		c.Abort = &Abort{Choice: readChoice(a), Status: int(status)}
		if s, ok := a["body"].(string); ok {
			c.Abort.Body = &s
		}
		headers, _ := a["headers"].(map[string]any)
		c.Abort.Headers = headerline.Texts(headers)
	}
	return c, nil
}

func readChoice(m map[string]any) Choice {
	c := Choice{Percentage: 100}
	if n, ok := split.Integer(m["percentage"]); ok {
		c.Percentage = int(n)
	}
	switch v := m["vars"].(type) {
	case []any:
		c.Vars = v
	case map[string]any: // the empty object is also the empty array
		c.Vars = []any{}
	}
	return c
}
