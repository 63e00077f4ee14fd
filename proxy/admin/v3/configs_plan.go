package v3

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"headgate/conf/resource"
	"headgate/conf/resource/split"
	"headgate/conf/store"
	"headgate/proxy"
)

// pluginsMember lists plugins, not documents.
const pluginsMember = "plugins"

// configsMembers are the keys that have a version, in the order in which their documents are written: what is referred to comes first.
var configsMembers = [...]string{
	secretsSegment, "protos", sslsSegment, "plugin_metadata", upstreamsSegment, "services", "plugin_configs", "consumer_groups",
	consumersSegment, "global_rules", routesSegment, streamsSegment, pluginsMember,
}

// referrers are the keys to whose documents nothing refers. Theirs are deleted before anything is written, so that what they hold
// (an identity, a plugin of a global rule) may move to another document; the others are deleted once nothing uses them any more.
var referrers = [...]string{routesSegment, "global_rules", consumersSegment, "plugin_metadata"}

// part is one key of the whole document and what is stored under it.
type part struct {
	key   string
	items []store.Item
}

// parts returns everything that PUT configs may change: the documents of the store, without those of the configuration file.
func (a *API) parts() []part {
	parts := make([]part, 0, len(configsMembers))
	for _, key := range configsMembers {
		if _, isKind := resource.KindOf(key); !isKind {
			continue
		}
		items := slices.DeleteFunc(slices.Clone(a.Plane.List(key)), func(item store.Item) bool { return a.Plane.ReadOnly(item.Key) != "" })
		parts = append(parts, part{key, items})
	}
	return parts
}

// change is the next state of one document; a nil value means that it goes.
type change struct {
	key   string
	value []byte
}

// plan works out what a document changes.
type plan struct {
	api     *API
	now     []part
	wanted  map[string]any
	replace map[string]bool // keys whose documents are replaced; the others stay as they are
}

// make returns the changes in the order in which they are to be made, and the parts as they will be then.
func (p *plan) make() (changes []change, after []part, err error) {
	if err := p.check(); err != nil {
		return nil, nil, err
	}
	var first, puts, last []change
	for _, now := range p.now {
		if !p.replace[now.key] {
			after = append(after, now)
			continue
		}
		wanted, err := p.documents(now.key)
		if err != nil {
			return nil, nil, err
		}
		next := part{key: now.key}
		stored := make(map[string][]byte, len(now.items))
		for _, item := range now.items {
			stored[item.Key] = item.Value
			if _, stays := wanted.values[item.Key]; stays {
				continue
			}
			gone := change{key: item.Key}
			if slices.Contains(referrers[:], now.key) {
				first = append(first, gone)
			} else {
				last = append(last, gone)
			}
		}
		for _, key := range wanted.keys {
			value := wanted.values[key]
			if before, had := stored[key]; had && sameDocument(before, value) {
				value = before
			} else {
				puts = append(puts, change{key, value})
			}
			next.items = append(next.items, store.Item{Key: key, Value: value})
		}
		slices.SortFunc(next.items, func(x, y store.Item) int { return strings.Compare(x.Key, y.Key) })
		after = append(after, next)
	}
	slices.Reverse(last) // what refers goes before what is referred to
	return slices.Concat(first, puts, last), after, nil
}

// check refuses what the documents themselves forbid. What they refer to is for the config path, which sees all of them together.
func (p *plan) check() error {
	if items, ok := p.wanted[streamsSegment].([]any); ok && len(items) > 0 && p.replace[streamsSegment] {
		return resource.Invalid(streamsOff)
	}
	if p.api.Checks == nil {
		return nil
	}
	replaced := make(map[string]any)
	for key, v := range p.wanted {
		if p.replace[key] {
			replaced[key] = v
		}
	}
	mistakes := resource.ValidateConfigs(replaced, configsEnv{p.api.Checks, p.api.Lenient})
	if len(mistakes) == 0 {
		return nil
	}
	m := mistakes[0]
	if strings.HasPrefix(m.Error, "found duplicate ") {
		return resource.Invalid(m.Error)
	}
	return resource.Invalid(fmt.Sprintf("invalid %s at index %d, err: %s", m.ResourceType, m.Index, m.Error))
}

// wanted holds documents by store key, in the order of the array.
type wanted struct {
	keys   []string
	values map[string][]byte
}

// documents returns those that the array under key asks for, in the form in which they are stored: as they were sent, without
// modifiedIndex, which belongs to the array's item. Consumers come before the credentials that the array holds too.
func (p *plan) documents(key string) (wanted, error) {
	w := wanted{values: make(map[string][]byte)}
	list, _ := p.wanted[key].([]any)
	var credentials []string
	for i, v := range list {
		item, ok := v.(map[string]any)
		if !ok {
			return w, resource.Invalid(fmt.Sprintf("invalid %s at index %d, err: expected an object", key, i))
		}
		storeKey, doc := documentOf(key, i, item)
		if _, _, ok := resource.ParseKey(storeKey); !ok {
			return w, resource.Invalid(fmt.Sprintf("invalid %s at index %d, err: invalid id", key, i))
		}
		if reason := p.api.Plane.ReadOnly(storeKey); reason != "" {
			return w, resource.Invalid(reason)
		}
		if _, twice := w.values[storeKey]; twice {
			return w, resource.Invalid(fmt.Sprintf("found duplicate id %s in %s", storeKey[len(key)+1:], key))
		}
		value, err := resource.Encode(doc)
		if err != nil {
			return w, err
		}
		w.values[storeKey] = value
		if strings.Contains(storeKey, "/"+credentialsSegment+"/") {
			credentials = append(credentials, storeKey)
		} else {
			w.keys = append(w.keys, storeKey)
		}
	}
	w.keys = append(w.keys, credentials...)
	return w, nil
}

// documentOf returns the store key of an item and the document to store. An item without an id gets one from its place.
func documentOf(key string, index int, item map[string]any) (string, map[string]any) {
	doc := make(map[string]any, len(item))
	for name, v := range item {
		if name != "modifiedIndex" {
			doc[name] = v
		}
	}
	id := idText(doc["id"])
	if key == consumersSegment {
		if user, short, ok := strings.Cut(id, "/"+credentialsSegment+"/"); ok {
			doc["id"] = short
			return key + "/" + user + "/" + credentialsSegment + "/" + short, doc
		}
		username, _ := doc["username"].(string)
		return key + "/" + username, doc
	}
	if _, has := doc["id"]; !has {
		id = fmt.Sprintf("arr_%d", index+1)
		doc["id"] = id
	}
	return key + "/" + id, doc
}

// idText is the id that a string or a whole number stands for, in a key.
func idText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		if n, ok := split.Integer(v); ok {
			return strconv.FormatInt(n, 10)
		}
		return string(v)
	}
	return ""
}

// sameDocument compares what operators wrote: times that the gateway added do not count.
func sameDocument(stored, value []byte) bool {
	if bytes.Equal(stored, value) {
		return true
	}
	x, y := resource.Members(stored), resource.Members(value)
	for _, name := range [...]string{"create_time", "update_time"} {
		if _, sent := y[name]; !sent {
			delete(x, name)
		}
	}
	return x != nil && y != nil && resource.SameValue(x, y)
}

// toPlane turns changes into those of the config path. Whatever was written meanwhile is replaced: the client asked for these documents
// and no others. Only a document that went by itself is a lost race, because what is not there cannot be deleted.
func toPlane(changes []change) []proxy.Change {
	list := make([]proxy.Change, len(changes))
	for i, c := range changes {
		list[i] = proxy.Change{Key: c.key, Edit: func(old *store.Item) ([]byte, error) {
			if old == nil && c.value == nil {
				return nil, store.ErrConflict
			}
			return c.value, nil
		}}
	}
	return list
}

func stateChange(text []byte) proxy.Change {
	return proxy.Change{Key: configsKey, Edit: func(*store.Item) ([]byte, error) { return text, nil }}
}
