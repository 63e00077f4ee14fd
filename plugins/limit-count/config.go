package limitcount

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/proxy/phase/limit/redis"
	"headgate/proxy/phase/wire"
)

// config is what the operator writes (contract section 4.2, limit-count).
type config struct {
	rules []ruleConfig
	// several says that the limits were written as rules.
	several bool
	sliding bool
	group   string // "" for none
	redis   redis.Settings
	remote  bool          // counts in redis
	sync    time.Duration // between two visits to redis; 0: every request visits it
	local   bool          // degradation: without redis, count here
	// rejectedCode is 0 for the default, rejectedMsg "" for none.
	rejectedCode int
	rejectedMsg  string
	pass         bool // allow_degradation
	quiet        bool // show_limit_quota_header is false
}

// ruleConfig is one limit.
type ruleConfig struct {
	count, window any // decoded JSON: a number or a template
	key, keyType  string
	prefix        string // for the names of the quota headers
}

// Contract section 4.2.
var (
	errTwoForms     = errors.New("count/time_window and rules cannot be specified at the same time")
	errGroupOfRules = errors.New("group and rules cannot be specified at the same time")
	errSyncTooSmall = errors.New("sync_interval should not be smaller than 0.1")
	errSyncTooLarge = errors.New("sync_interval should be smaller than time_window")
)

func validate(conf []byte) error {
	_, err := read(conf)
	return err
}

// read reads conf, which satisfies the schema, and checks what the schema cannot say.
func read(conf []byte) (*config, error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return nil, err
	}
	doc, _ := v.(map[string]any)
	c := &config{}
	window, _ := doc["window_type"].(string)
	c.sliding = window == "sliding"
	c.group, _ = doc["group"].(string)
	c.redis, c.remote = redis.Read(doc)
	degradation, _ := doc["degradation"].(string)
	c.local = degradation == "local"
	code, _ := split.Integer(doc["rejected_code"])
	c.rejectedCode = int(code)
	c.rejectedMsg, _ = doc["rejected_msg"].(string)
	c.pass, _ = doc["allow_degradation"].(bool)
	show, given := doc["show_limit_quota_header"].(bool)
	c.quiet = given && !show
	rules, several := doc["rules"].([]any)
	if _, ok := doc["rules"].(map[string]any); ok { // the empty object is also the empty array
		several = true
	}
	_, grouped := doc["group"]
	switch c.several = several; {
	case several && (doc["count"] != nil || doc["time_window"] != nil):
		return nil, errTwoForms
	case several && grouped:
		return nil, errGroupOfRules
	}
	if c.sync, err = readSync(doc); err != nil {
		return nil, err
	}
	if several {
		return c, c.readRules(rules)
	}
	only := ruleConfig{count: doc["count"], window: doc["time_window"], key: "remote_addr"}
	if key, ok := doc["key"].(string); ok {
		only.key = key
	}
	only.keyType, _ = doc["key_type"].(string)
	c.rules = []ruleConfig{only}
	return c, nil
}

func (c *config) readRules(rules []any) error {
	seen := map[string]bool{}
	for i, item := range rules {
		m, _ := item.(map[string]any)
		r := ruleConfig{count: m["count"], window: m["time_window"], keyType: "var_combination", prefix: strconv.Itoa(i + 1)}
		r.key, _ = m["key"].(string)
		if prefix, ok := m["header_prefix"].(string); ok {
			if r.prefix = prefix; !wire.ValidName([]byte(prefix)) {
				return fmt.Errorf("header_prefix %q cannot be part of a header's name", prefix)
			}
		}
		if seen[r.key] {
			return fmt.Errorf("duplicate key '%s' in rules", r.key)
		}
		seen[r.key] = true
		c.rules = append(c.rules, r)
	}
	return nil
}

// readSync reads sync_interval, which is for the policies that count in redis. 0 stands for every request.
func readSync(doc map[string]any) (time.Duration, error) {
	policy, _ := doc["policy"].(string)
	interval, given := doc["sync_interval"].(json.Number)
	if !given || policy == "" || policy == "local" {
		return 0, nil
	}
	every, err := interval.Float64()
	if err != nil || every == -1 {
		return 0, err
	}
	if every < 0.1 {
		return 0, errSyncTooSmall
	}
	if window, ok := doc["time_window"].(json.Number); ok {
		if seconds, err := window.Float64(); err != nil || every >= seconds {
			return 0, errSyncTooLarge
		}
	}
	return time.Duration(min(every, longestSync) * float64(time.Second)), nil
}

// longestSync is a day, in seconds.
const longestSync = 24 * 3600
