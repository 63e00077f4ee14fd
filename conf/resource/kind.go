// Package resource knows the documents that operators store (routes, services, upstreams, consumers, ...): what they may look like,
// what they mean once defaults are applied, and the exact words in which a wrong one is refused (Admin API contract sections 1.2 to
// 1.8, 3.1, 3.4). It is pure: no IO, no run-time state. Documents are judged as they were sent; defaults exist on the typed forms only.
package resource

import (
	"slices"
	"strings"
)

// Kind is one sort of document. Kinds are comparable.
type Kind struct {
	Segment string // in paths and keys: "routes"
	Word    string // in messages: "route"
	// Parent is the segment of the documents that hold these: "consumers" for credentials, whose paths and keys start with the
	// parent's and whose ids are "jack/credentials/c1". Empty otherwise.
	Parent string
	// NoPost and NoPatch: the verb is refused with 405 (contract section 1.2).
	NoPost, NoPatch bool
	// NoTimes: stored values carry no create_time and no update_time.
	NoTimes bool
	// NoID: the id is not written into stored values, it is there under another name (consumers: username).
	NoID bool
}

const (
	segmentRoutes         = "routes"
	segmentServices       = "services"
	segmentUpstreams      = "upstreams"
	segmentConsumers      = "consumers"
	segmentCredentials    = "credentials"
	segmentConsumerGroups = "consumer_groups"
	segmentPluginConfigs  = "plugin_configs"
	segmentGlobalRules    = "global_rules"
	segmentPluginMetadata = "plugin_metadata"
	segmentSSLs           = "ssls"
	segmentSecrets        = "secrets"
	segmentProtos         = "protos"
	segmentStreamRoutes   = "stream_routes" // not stored: the gateway has no stream mode
)

// secretManagers are the services that the contract keeps secrets in.
var secretManagers = [...]string{"vault", "aws", "gcp"}

// kinds are sorted by Segment.
var kinds = [...]Kind{
	{Segment: segmentConsumerGroups, Word: "consumer group", NoPost: true},
	{Segment: segmentConsumers, Word: "consumer", NoPost: true, NoPatch: true, NoID: true},
	{Segment: segmentCredentials, Word: "credential", Parent: segmentConsumers, NoPost: true, NoPatch: true},
	{Segment: segmentGlobalRules, Word: "global rule", NoPost: true},
	{Segment: segmentPluginConfigs, Word: "plugin config", NoPost: true},
	{Segment: segmentPluginMetadata, Word: "plugin_metadata", NoPost: true, NoPatch: true, NoTimes: true},
	{Segment: segmentProtos, Word: "proto", NoPatch: true},
	{Segment: segmentRoutes, Word: "route"},
	{Segment: segmentSecrets, Word: "secret", NoPost: true},
	{Segment: segmentServices, Word: "service"},
	{Segment: segmentSSLs, Word: "ssl"},
	{Segment: segmentUpstreams, Word: "upstream"},
}

// Kinds lists every kind of stored document, sorted by Segment.
func Kinds() []Kind { return slices.Clone(kinds[:]) }

// KindOf finds the kind by its segment. A kind with a Parent is found too, though its paths start with the parent's segment.
func KindOf(segment string) (Kind, bool) {
	for i := range kinds {
		if kinds[i].Segment == segment {
			return kinds[i], true
		}
	}
	return Kind{}, false
}

// Key returns the store key of the document id: "routes/1", "consumers/jack/credentials/c1", "secrets/vault/v1".
func (k Kind) Key(id string) string {
	if k.Parent != "" {
		return k.Parent + "/" + id
	}
	return k.Segment + "/" + id
}

// ParseKey takes a store key apart; it is the reverse of Kind.Key. ok is false for keys that no kind has. Whether the id is well formed
// is for Kind.ValidID to say.
func ParseKey(key string) (k Kind, id string, ok bool) {
	segment, id, _ := strings.Cut(key, "/")
	parts, want := strings.Count(id, "/")+1, 1
	switch {
	case segment == segmentCredentials: // they stand below their consumer
		return Kind{}, "", false
	case segment == segmentSecrets:
		want = 2
	case segment == segmentConsumers && parts == 3 && strings.Contains(id, "/"+segmentCredentials+"/"):
		segment, want = segmentCredentials, 3
	}
	k, ok = KindOf(segment)
	if empty := id == "" || id[0] == '/' || id[len(id)-1] == '/' || strings.Contains(id, "//"); !ok || parts != want || empty {
		return Kind{}, "", false
	}
	return k, id, true
}
