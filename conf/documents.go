package conf

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
)

// Kinds of inline resources, as their tables and the segments of their store keys are called.
const (
	kindRoutes         = "routes"
	kindServices       = "services"
	kindUpstreams      = "upstreams"
	kindConsumers      = "consumers"
	kindCredentials    = "credentials"
	kindConsumerGroups = "consumer_groups"
	kindPluginConfigs  = "plugin_configs"
	kindGlobalRules    = "global_rules"
	kindPluginMetadata = "plugin_metadata"
	kindSSLs           = "ssls"
	kindSecrets        = "secrets"
	kindProtos         = "protos"
)

// DocumentKinds lists the kinds of resources that a file can hold, in the order in which a file is best read.
func DocumentKinds() []string {
	var c Config
	var out []string
	for _, l := range c.inline() {
		out = append(out, l.Kind)
	}
	return out
}

// Resources are the resources of one kind in a file.
type Resources struct {
	Kind string
	List []map[string]any
}

func (c *Config) inline() []Resources {
	return []Resources{
		{kindUpstreams, c.Upstreams}, {kindServices, c.Services}, {kindRoutes, c.Routes},
		{kindConsumerGroups, c.ConsumerGroups}, {kindConsumers, c.Consumers}, {kindCredentials, c.Credentials},
		{kindPluginConfigs, c.PluginConfigs}, {kindGlobalRules, c.GlobalRules}, {kindPluginMetadata, c.PluginMetadata},
		{kindSSLs, c.SSLs}, {kindSecrets, c.Secrets}, {kindProtos, c.Protos},
	}
}

// Documents returns the inline resources of a Config that Load or Parse returned, by store key ("routes/1",
// "consumers/jack/credentials/c1", "secrets/vault/v1"). The maps belong to the Config: read them only. Empty without resources.
func (c *Config) Documents() map[string]map[string]any {
	out := map[string]map[string]any{}
	for _, l := range c.inline() {
		for _, r := range l.List {
			if key, doc, err := NewDocument(l.Kind, r); err == nil {
				out[key] = doc
			}
		}
	}
	return out
}

// DocumentAt returns where the document with the store key stands, for Config.At ("routes[0]"); false when it is not in the file.
func (c *Config) DocumentAt(key string) (at string, ok bool) {
	for _, l := range c.inline() {
		for i, r := range l.List {
			if k, _, err := NewDocument(l.Kind, r); err == nil && k == key {
				return indexKey(l.Kind, i), true
			}
		}
	}
	return "", false
}

// IdentityError says that a resource lacks what its store key is made of.
type IdentityError struct {
	Field string // "id", "username", "consumer"
	Msg   string
}

func (e *IdentityError) Error() string { return e.Field + ": " + e.Msg }

// NewDocument returns the store key of a resource in a file and the document as it is stored. Consumers are named by "username",
// credentials by "consumer" (which the document does not keep) and "id", secrets by an "id" of manager/name, everything else by "id".
// r is not changed; it is the document unless something has to be left out. The error is an *IdentityError.
func NewDocument(kind string, r map[string]any) (key string, doc map[string]any, err error) {
	prefix, doc := kind+"/", r
	var name string
	switch kind {
	case kindConsumers:
		name, err = username(r, "username")
	case kindCredentials:
		var owner string
		if owner, err = username(r, "consumer"); err != nil {
			return "", nil, err
		}
		prefix = kindConsumers + "/" + owner + "/" + kind + "/"
		doc = maps.Clone(r)
		delete(doc, "consumer")
		name, err = resourceID(r)
	case kindSecrets:
		name, _ = r["id"].(string)
		if manager, rest, _ := strings.Cut(name, "/"); !isID(manager) || !isID(rest) {
			err = &IdentityError{"id", `expected an id of manager and name such as "vault/1"`}
		}
	default:
		name, err = resourceID(r)
	}
	if err != nil {
		return "", nil, err
	}
	return prefix + name, doc, nil
}

func username(r map[string]any, field string) (string, error) {
	name, _ := r[field].(string)
	if !usernamePattern.MatchString(name) {
		return "", &IdentityError{field, "expected the name of a consumer: 1 to 256 letters, digits, - or _"}
	}
	return name, nil
}

func resourceID(r map[string]any) (string, error) {
	id, ok := ResourceID(r)
	switch {
	case isDotSegment(id):
		return "", &IdentityError{"id", `expected an id other than "." and "..", which no URL can name`}
	case !ok:
		return "", &IdentityError{"id", "expected an id of 1 to 64 letters, digits, - _ or . (or a positive whole number)"}
	}
	return id, nil
}

func isID(s string) bool { return idPattern.MatchString(s) && !isDotSegment(s) }

// isDotSegment says whether id has a meaning of its own in the path of a URL (RFC 3986 section 5.2.4).
func isDotSegment(id string) bool { return id == "." || id == ".." }

// ResourceID returns the member "id" of an inline resource as the Admin API spells it in paths, and whether it can be one.
func ResourceID(r map[string]any) (string, bool) {
	switch id := r["id"].(type) {
	case string:
		return id, isID(id)
	case int64:
		return strconv.FormatInt(id, 10), id > 0
	case json.Number:
		n, err := strconv.ParseInt(id.String(), 10, 64)
		return strconv.FormatInt(n, 10), err == nil && n > 0
	}
	return "", false
}

// CheckDocuments calls add, with the place and the reason, for every resource of a kind that NewDocument refuses or that has the key
// of an earlier one. What else a resource may be belongs to conf/resource.
func CheckDocuments(kind string, list []map[string]any, add func(at, msg string)) {
	seen := make(map[string]int, len(list))
	for i, r := range list {
		at := indexKey(kind, i)
		key, _, err := NewDocument(kind, r)
		if wrong := (*IdentityError)(nil); errors.As(err, &wrong) {
			add(childKey(at, wrong.Field), wrong.Msg)
			continue
		}
		if first, dup := seen[key]; dup {
			field, what := "id", "an id"
			if kind == kindConsumers {
				field, what = "username", "a username"
			}
			name := key[strings.LastIndexByte(key, '/')+1:]
			add(childKey(at, field), fmt.Sprintf("expected %s of its own, %q is also that of %s", what, name, indexKey(kind, first)))
			continue
		}
		seen[key] = i
	}
}
