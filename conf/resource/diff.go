package resource

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"headgate/conf/schema"
)

const (
	// maxChanges bounds the members that one line of the audit names.
	maxChanges = 32
	// maxMember bounds a name in bytes.
	maxMember = 64
)

// opened are the members whose own members are told. They hold parts that operators know by name; elsewhere a name may be data.
var opened = [...]string{"plugins", "upstream", "timeout", "tls", "client", "labels"}

// Diff says which members differ between two documents, for people who ask later who changed what: "+name" is new, "-name" is gone,
// "~name" has another value, separated by spaces and sorted by name. nil stands for no document. Values never appear, because they may
// be secrets; neither do the times and the id, which change by themselves or with the key. "" means that nothing else differs.
func Diff(before, after []byte) string {
	d := differ{}
	d.objects("", Members(before), Members(after))
	if len(d.changes) > maxChanges {
		more := len(d.changes) - maxChanges
		d.changes = append(d.changes[:maxChanges], "and "+strconv.Itoa(more)+" more")
	}
	return strings.Join(d.changes, " ")
}

// Members returns the members of a document. It takes what is no object for an object without members.
func Members(raw []byte) map[string]any {
	if raw == nil {
		return nil
	}
	doc, err := schema.DecodeJSON(raw)
	if err != nil {
		return nil
	}
	members, _ := doc.(map[string]any)
	return members
}

type differ struct{ changes []string }

// objects compares members; prefix is "" for those of the document and "upstream." for those of a member.
func (d *differ) objects(prefix string, before, after map[string]any) {
	names := slices.Collect(maps.Keys(after))
	for name := range before {
		if _, stays := after[name]; !stays {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if prefix == "" && (name == "create_time" || name == "update_time" || name == "id") {
			continue
		}
		was, had := before[name]
		is, has := after[name]
		if prefix == "" && slices.Contains(opened[:], name) && d.open(name, was, is) {
			continue
		}
		switch {
		case !had:
			d.add("+", prefix, name)
		case !has:
			d.add("-", prefix, name)
		case !SameValue(was, is):
			d.add("~", prefix, name)
		}
	}
}

// open compares the members of a member, and returns false where there are none to name.
func (d *differ) open(name string, was, is any) bool {
	before, _ := was.(map[string]any)
	after, _ := is.(map[string]any)
	if was != nil && before == nil || is != nil && after == nil || len(before)+len(after) == 0 {
		return false
	}
	d.objects(name+".", before, after)
	return true
}

func (d *differ) add(sign, prefix, name string) {
	d.changes = append(d.changes, sign+prefix+memberName(name))
}

// memberName keeps a name to one word of one line.
func memberName(name string) string {
	odd := func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' && c != '.'
	}
	if len(name) <= maxMember && name != "" && strings.IndexFunc(name, odd) < 0 {
		return name
	}
	if len(name) > maxMember {
		return strconv.QuoteToASCII(name[:maxMember]) + "..."
	}
	return strconv.QuoteToASCII(name)
}

func SameValue(a, b any) bool {
	x, err := Encode(a)
	if err != nil {
		return false
	}
	y, err := Encode(b)
	return err == nil && string(x) == string(y)
}
