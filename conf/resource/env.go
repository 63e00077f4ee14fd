package resource

// PluginState says how the gateway stands to a plugin name.
type PluginState uint8

const (
	// PluginUnknown: nobody has such a plugin.
	PluginUnknown PluginState = iota
	// PluginKnown: the contract lists it (see KnownPlugin), this gateway does not have it. Configurations that name it are refused.
	PluginKnown
	// PluginInert: known, not here, and the operator asked for its configurations to be stored all the same; it does not run.
	PluginInert
	// PluginPresent: the gateway has it.
	PluginPresent
)

// Use says where a plugin's configuration stands, which decides by which schema it is judged.
type Use uint8

const (
	// InRoute: in a route, service, plugin config, consumer group or global rule, or in a consumer when it is no authentication plugin.
	InRoute Use = iota
	// InConsumer: in a consumer or a credential; authentication plugins only.
	InConsumer
	// AsMetadata: the plugin_metadata document of the plugin.
	AsMetadata
)

// Env is what Validate has to ask others.
type Env interface {
	// Exists says whether a document is stored under key ("upstreams/1").
	Exists(key string) bool
	// Document returns what is stored under key, nil when nothing is. It is read only.
	Document(key string) []byte
	// Plugin says whether the gateway has a plugin of that name.
	Plugin(name string) PluginState
	// IsAuth says whether a plugin that is present tells consumers: only such a plugin may stand in a credential.
	IsAuth(name string) bool
	// CheckPlugin judges a configuration by the plugin's schema and rules for the use. conf is an object, or a non-empty array, which
	// no plugin takes; as metadata it comes without the id, and passes when the plugin has no rules for its metadata. The error text
	// carries no prefix. Only plugins that are present are asked about.
	CheckPlugin(name string, conf any, use Use) error
	// CheckVars judges an expression of the vars language. raw is an array. The error text carries no prefix.
	CheckVars(raw any) error
	// CredentialOwner finds another consumer or credential that shows the same identity for the plugin as conf does. except is the key
	// of the document that is being judged ("consumers/jack"), attr the member that is the identity ("key"), owner the store key of the
	// other document; both are "" when there is none.
	CredentialOwner(plugin string, conf map[string]any, except string) (attr, owner string)
	// GlobalRuleWith returns the id of a global rule other than the one whose id is except that has the plugin, "" when there is none.
	GlobalRuleWith(plugin, except string) string
	// Lenient says whether the operator asked for the looser ways of the contract's gateway in one point: "ssl_key_mismatch".
	Lenient(switchName string) bool
}
