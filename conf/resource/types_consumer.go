package resource

// Consumer is a consumer (contract section 1.7).
type Consumer struct {
	Username, Desc string
	Labels         map[string]string
	GroupID        string   // empty when absent
	Plugins        []Plugin // sorted by name
}

// Credential is a credential of a consumer (contract section 1.7).
type Credential struct {
	ID, Name, Desc string // ID is the last part of the key: "c1"
	Labels         map[string]string
	Plugins        []Plugin // at most one
}

// PluginSet is a consumer group, a plugin config or a global rule: plugins under an id (contract section 1.7).
type PluginSet struct {
	ID, Name, Desc string
	Labels         map[string]string
	Plugins        []Plugin // sorted by name
}

// SSL is a certificate: of this gateway towards clients (type "server") or towards upstreams (type "client"). Keys are secrets: never
// log them. Values may be references ($secret://, $env://) instead of PEM.
type SSL struct {
	ID, Desc string
	Labels   map[string]string
	Type     string   // "server" (default) or "client"
	SNIs     []string // sni or snis; "*.example.com" and "*" are possible
	Pairs    []KeyPair
	Client   *SSLClient // nil: clients are not asked for a certificate
	Status   int        // 1 serves (default), 0 does not
	// Protocols are out of "TLSv1.1", "TLSv1.2", "TLSv1.3"; empty: as the listener says.
	Protocols []string
}

// KeyPair is a certificate chain and its private key, both PEM.
type KeyPair struct{ Cert, Key string }

// SSLClient says which certificates clients must show.
type SSLClient struct {
	CA    string // PEM, one or more certificates
	Depth int    // how many certificates may stand between the client's and the CA; default 1
	// SkipURIs are regular expressions of paths for which no certificate is needed.
	SkipURIs []string
}

// Proto is a protocol buffer definition.
type Proto struct {
	ID, Name, Desc string
	Labels         map[string]string
	Content        string
}
