package limitconn

import (
	"encoding/json"

	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/proxy/phase/limit/redis"
)

// config is what the operator writes (contract section 4.4, limit-conn).
type config struct {
	rules []ruleConfig
	// several says that the limits were written as rules.
	several bool
	// delay is the unit of waiting in seconds; fixedDelay keeps it.
	delay      float64
	fixedDelay bool
	redis      redis.Settings
	remote     bool  // counts in redis
	ttl        int64 // key_ttl in milliseconds
	local      bool  // degradation: without redis, count here
	// rejectedCode is 0 for the default, rejectedMsg "" for none.
	rejectedCode int
	rejectedMsg  string
	pass         bool // allow_degradation
}

// ruleConfig is one limit.
type ruleConfig struct {
	conn, burst  any // decoded JSON: a number or a template
	key, keyType string
}

// read reads conf, which satisfies the schema.
func read(conf []byte) (*config, error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return nil, err
	}
	doc, _ := v.(map[string]any)
	c := &config{}
	delay, _ := doc["default_conn_delay"].(json.Number)
	if c.delay, err = delay.Float64(); err != nil {
		return nil, err
	}
	c.fixedDelay, _ = doc["only_use_default_delay"].(bool)
	c.redis, c.remote = redis.Read(doc)
	c.ttl = 3600 * 1000
	if ttl, given := split.Integer(doc["key_ttl"]); given {
		c.ttl = min(ttl, longestTTL) * 1000
	}
	degradation, _ := doc["degradation"].(string)
	c.local = degradation == "local"
	code, _ := split.Integer(doc["rejected_code"])
	c.rejectedCode = int(code)
	c.rejectedMsg, _ = doc["rejected_msg"].(string)
	c.pass, _ = doc["allow_degradation"].(bool)
	if _, c.several = doc["rules"]; !c.several {
		r := readRule(doc)
		r.keyType, _ = doc["key_type"].(string)
		c.rules = []ruleConfig{r}
		return c, nil
	}
	rules, _ := doc["rules"].([]any) // the empty object is also the empty array
	for _, item := range rules {
		m, _ := item.(map[string]any)
		r := readRule(m)
		r.keyType = "var_combination"
		c.rules = append(c.rules, r)
	}
	return c, nil
}

// longestTTL is 10 years, in seconds.
const longestTTL = 10 * 365 * 24 * 3600

func readRule(m map[string]any) ruleConfig {
	r := ruleConfig{conn: m["conn"], burst: m["burst"]}
	r.key, _ = m["key"].(string)
	return r
}
