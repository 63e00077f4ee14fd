package snapshot

import (
	"maps"
	"slices"
	"strings"
)

// units are what has to be compiled, sorted.
type units struct {
	routes, consumers, groups []string
	globals                   bool
}

func (st *Stage) affected() (u units) {
	set := make(map[string]bool, len(st.edits))
	for key := range st.edits {
		if unit := unitOf(key); unit != "" {
			set[unit] = true
		}
		for user := range st.c.users[key] {
			set[user] = true
		}
	}
	for _, key := range st.shown {
		for user := range st.c.users[key] {
			set[user] = true
		}
	}
	for _, key := range sortedKeys(set) {
		switch segment, _, _ := strings.Cut(key, "/"); segment {
		case "routes":
			u.routes = append(u.routes, key)
		case "consumers":
			u.consumers = append(u.consumers, key)
		case "consumer_groups":
			u.groups = append(u.groups, key)
		case "upstreams", "services": // shown
		default:
			u.globals = true
		}
	}
	return u
}

// sortedKeys is slices.Sorted of the keys without growing step by step.
func sortedKeys[V any](m map[string]V) []string {
	keys := slices.AppendSeq(make([]string, 0, len(m)), maps.Keys(m))
	slices.Sort(keys)
	return keys
}

// unitOf returns what is compiled from the document key, "" when it is only used by others.
func unitOf(key string) string {
	segment, id, _ := strings.Cut(key, "/")
	switch segment {
	case "routes", "consumer_groups":
		return key
	case "consumers":
		name, _, _ := strings.Cut(id, "/")
		return segment + "/" + name
	case globalUnit:
		return globalUnit
	}
	return ""
}

// credentialKeys returns the keys of the credentials of the consumer key, as they will be after the change, sorted.
func (st *Stage) credentialKeys(key string) []string {
	folder := key + "/credentials"
	return st.c.keysBelow(folder, st.folders[folder])
}

// globalKeys does the same for global rules.
func (st *Stage) globalKeys() []string { return st.c.keysBelow(globalUnit, st.folders[globalUnit]) }

// keysBelow returns the keys of the documents below a folder that have been seen, and those of more, sorted.
func (c *Compiler) keysBelow(folder string, more []string) []string {
	keys := slices.AppendSeq(slices.Clone(more), maps.Keys(c.folders[folder]))
	slices.Sort(keys)
	return slices.Compact(keys)
}

// folderOf returns the folder of a document that is compiled together with its siblings.
func folderOf(key string) (folder string, listed bool) {
	i := strings.LastIndexByte(key, '/')
	if i < 0 {
		return "", false
	}
	folder = key[:i]
	return folder, folder == globalUnit || strings.HasPrefix(key, "consumers/") && strings.HasSuffix(folder, "/credentials")
}
