package snapshot

import (
	"sync"

	"headgate/conf/resource"
)

// Judge judges the plugin configurations of many documents, equal ones only once: most of a large store repeat a few. That is no shortcut
// for what is wrong: it remembers only what passed, and to judge a configuration nothing is asked but itself. It is safe for concurrent
// use, and belongs to one change.
type Judge struct {
	c      *Compiler
	mu     sync.RWMutex
	passed map[judged]struct{}
}

type judged struct {
	plugin string
	use    resource.Use
	conf   string // as JSON
}

// maxJudged bounds how many configurations a Judge remembers, maxJudgedConf the bytes of each.
const maxJudged, maxJudgedConf = 4096, 1024

// Judge returns one that remembers nothing yet.
func (c *Compiler) Judge() *Judge { return &Judge{c: c, passed: map[judged]struct{}{}} }

// CheckPlugin is Compiler.CheckPlugin.
func (j *Judge) CheckPlugin(name string, conf any, use resource.Use) error {
	text, err := resource.Encode(conf)
	if err != nil {
		return j.c.CheckPlugin(name, conf, use)
	}
	j.mu.RLock()
	_, passed := j.passed[judged{name, use, string(text)}]
	j.mu.RUnlock()
	if passed {
		return nil
	}
	if err := j.c.checkPlugin(name, conf, text, use); err != nil {
		return err
	}
	if len(text) <= maxJudgedConf {
		j.mu.Lock()
		if len(j.passed) < maxJudged {
			j.passed[judged{name, use, string(text)}] = struct{}{}
		}
		j.mu.Unlock()
	}
	return nil
}
