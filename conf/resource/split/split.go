// Package split reads the configuration of the traffic-split plugin the way people speak of it: as named branches with weights. The
// plugin, the metrics and the Admin API take the names from here, so that they always mean the same branch.
package split

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
)

// defaultName is the branch that goes to the route's own upstream.
const defaultName = "default"

// Branch is one entry of a split.
type Branch struct {
	// Name is unique within the configuration: the entry's name, its upstream's name, its upstream_id, the first segment of the path
	// that it rewrites to, or "branch-<n>" where n counts all branches from 1. An entry of weighted_upstreams with neither upstream
	// nor rewrite is called "default". A name that is taken gets "-2", "-3", ... behind it: an entry's own name is taken before all
	// others, wherever it stands, and among equals the first one keeps it.
	Name string
	// Weight is the entry's weight, 1 where it has none. What is not a whole number from 0 to MaxInt64 reads as 0: such a
	// configuration does not pass validation.
	Weight int64
	// Path leads from the configuration to the entry: strings are members of objects, ints positions in arrays.
	Path []any
	// Split numbers the splits of the configuration from 0. The weights of one split are shares of the same traffic: one rule's
	// weighted_upstreams, or all the items of rules that are branches themselves.
	Split int
	// Implied says that the entry isn't written down: a rule without weighted_upstreams stands for a single default branch.
	Implied bool

	explicit bool // Name is the entry's own
}

// Branches lists the branches of conf, a traffic-split configuration as schema.DecodeJSON returns it, in the order in which they are
// written. Two forms are understood, also mixed: rules[].weighted_upstreams[] (contract section 4.2), and items of rules that carry
// weight, upstream, upstream_id or rewrite themselves. conf need not be valid: what has the wrong type is passed over. Path is newly
// made, everything else refers to nothing in conf.
func Branches(conf map[string]any) []Branch {
	found := collect(conf)
	unique(found)
	return found
}

// Repeated returns the first name that an entry of conf has of its own although an earlier one has it too, "" if there is none. Such
// a configuration does not pass validation; Branches tells its entries apart all the same.
func Repeated(conf map[string]any) string {
	seen := make(map[string]bool)
	for _, b := range collect(conf) {
		if !b.explicit {
			continue
		}
		if seen[b.Name] {
			return b.Name
		}
		seen[b.Name] = true
	}
	return ""
}

// collect lists the branches under the names that they would like to have.
func collect(conf map[string]any) []Branch {
	rules, _ := conf["rules"].([]any)
	var found []Branch
	splits, direct := 0, -1
	for i, item := range rules {
		rule, ok := item.(map[string]any)
		if !ok {
			continue
		}
		if IsBranch(rule) {
			if direct < 0 {
				direct = splits
				splits++
			}
			found = append(found, Branch{
				Name: entryName(rule, false), Weight: weightOf(rule), Path: []any{"rules", i}, Split: direct,
				explicit: ownName(rule) != "",
			})
			continue
		}
		found = appendWeighted(found, rule, i, splits)
		splits++
	}
	return found
}

func appendWeighted(found []Branch, rule map[string]any, i, split int) []Branch {
	entries, _ := rule["weighted_upstreams"].([]any)
	if _, written := rule["weighted_upstreams"]; !written {
		return append(found, Branch{
			Name: defaultName, Weight: 1, Path: []any{"rules", i, "weighted_upstreams", 0}, Split: split, Implied: true,
		})
	}
	for j, item := range entries {
		if entry, ok := item.(map[string]any); ok {
			found = append(found, Branch{
				Name: entryName(entry, true), Weight: weightOf(entry), Path: []any{"rules", i, "weighted_upstreams", j}, Split: split,
				explicit: ownName(entry) != "",
			})
		}
	}
	return found
}

// IsBranch says whether an item of rules is a branch itself, rather than a rule with match and weighted_upstreams.
func IsBranch(rule map[string]any) bool {
	if _, weighted := rule["weighted_upstreams"]; weighted {
		return false
	}
	for _, member := range [...]string{"weight", "upstream", "upstream_id", "rewrite"} {
		if _, ok := rule[member]; ok {
			return true
		}
	}
	return false
}

// SetWeight writes weight into the entry of b. b must come from Branches of this very conf; everything but the one member stays as
// it is, except that an implied entry gets written down.
func SetWeight(conf map[string]any, b Branch, weight int64) {
	number := json.Number(strconv.FormatInt(weight, 10))
	rules, _ := conf["rules"].([]any)
	rule, _ := rules[b.Path[1].(int)].(map[string]any)
	if len(b.Path) == 2 {
		rule["weight"] = number
		return
	}
	if b.Implied {
		rule["weighted_upstreams"] = []any{map[string]any{"weight": number}}
		return
	}
	entries, _ := rule["weighted_upstreams"].([]any)
	entry, _ := entries[b.Path[3].(int)].(map[string]any)
	entry["weight"] = number
}

// Integer reads a number that has no fractional part, however it is written (80, 80.0, 8e1).
func Integer(v any) (int64, bool) {
	switch v := v.(type) {
	case json.Number:
		if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return n, true
		}
		f, err := strconv.ParseFloat(string(v), 64)
		if err != nil {
			return 0, false
		}
		return whole(f)
	case float64:
		return whole(v)
	case int64:
		return v, true
	case int:
		return int64(v), true
	}
	return 0, false
}

func whole(f float64) (int64, bool) {
	if f != math.Trunc(f) || math.Abs(f) >= 1<<63 {
		return 0, false
	}
	return int64(f), true
}

func weightOf(entry map[string]any) int64 {
	v, ok := entry["weight"]
	if !ok {
		return 1
	}
	n, ok := Integer(v)
	if !ok || n < 0 {
		return 0
	}
	return n
}

// entryName returns the name before it is made unique, "" for an entry that has to be numbered.
func entryName(entry map[string]any, weighted bool) string {
	if name := ownName(entry); name != "" {
		return name
	}
	upstream, hasUpstream := entry["upstream"].(map[string]any)
	if name, _ := upstream["name"].(string); name != "" {
		return name
	}
	if id := idText(entry["upstream_id"]); id != "" {
		return id
	}
	rewrite, hasRewrite := entry["rewrite"].(map[string]any)
	uri, _ := rewrite["uri"].(string)
	if segment := firstSegment(uri); segment != "" {
		return segment
	}
	if weighted && !hasUpstream && !hasRewrite {
		return defaultName
	}
	return ""
}

func ownName(entry map[string]any) string {
	name, _ := entry["name"].(string)
	return name
}

func idText(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	if n, ok := Integer(v); ok {
		return strconv.FormatInt(n, 10)
	}
	return ""
}

// firstSegment returns "v1" for "/v1/chat?x". A segment with a variable in it names nothing, since it differs by request.
func firstSegment(uri string) string {
	path, _, _ := strings.Cut(uri, "?")
	segment, _, _ := strings.Cut(strings.TrimLeft(path, "/"), "/")
	if strings.Contains(segment, "$") {
		return ""
	}
	return segment
}

// unique numbers the branches that have no name and tells equal names apart. Explicit names go before derived ones, since operators
// address branches by them; otherwise whoever comes first keeps the plain name. No made-up name collides with one that is written down.
func unique(branches []Branch) {
	written := make(map[string]bool, len(branches))
	for i := range branches {
		written[branches[i].Name] = true
	}
	taken := make(map[string]bool, len(branches))
	settled := make([]bool, len(branches))
	for i := range branches {
		if name := branches[i].Name; branches[i].explicit && !taken[name] {
			taken[name], settled[i] = true, true
		}
	}
	next := make(map[string]int) // by base name, so that many equal names cost no more than many different ones
	for i := range branches {
		if settled[i] {
			continue
		}
		base := branches[i].Name
		switch {
		case base == "":
			base = "branch-" + strconv.Itoa(i+1)
		case !taken[base]:
			taken[base] = true
			continue
		}
		name, n := base, max(next[base], 2)
		for ; taken[name] || written[name]; n++ {
			name = base + "-" + strconv.Itoa(n)
		}
		branches[i].Name, next[base] = name, n
		taken[name] = true
	}
}
