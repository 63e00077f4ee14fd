package conf

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// keyringKeyLength is the length of an AES-128 key, in bytes.
const keyringKeyLength = 16

// Store is where the Admin API keeps documents.
type Store struct {
	Provider   string     `toml:"provider"`
	Path       string     `toml:"path"` // file of the embedded provider
	Etcd       Etcd       `toml:"etcd"`
	File       File       `toml:"file"`
	Encryption Encryption `toml:"encryption"`
}

// Etcd is the etcd provider: APISIX's key layout (contract section 8).
type Etcd struct {
	Endpoints     []string `toml:"endpoints"` // URLs
	Prefix        string   `toml:"prefix"`    // begins with a slash, ends without one
	User          string   `toml:"user"`
	Password      Secret   `toml:"password"`
	Timeout       Duration `toml:"timeout"`       // one request
	StartupRetry  int      `toml:"startup_retry"` // further attempts at the first read
	TLSCA         string   `toml:"tls_ca"`        // PEM file; "" = the system's authorities
	TLSCert       string   `toml:"tls_cert"`      // PEM files of the client certificate; both or none
	TLSKey        string   `toml:"tls_key"`
	TLSVerify     bool     `toml:"tls_verify"`
	TLSServerName string   `toml:"tls_server_name"` // "" = the host of the endpoint
}

// File is the file provider: one document with every resource, watched. The Admin API is read-only with it.
type File struct {
	Path     string   `toml:"path"`     // .toml, .yaml or .yml
	Interval Duration `toml:"interval"` // how often the file is looked at, besides the notifications of the system
}

// Encryption is how secret fields of documents are stored (contract section 8).
type Encryption struct {
	// Keyring holds AES-128 keys of 16 characters: the first encrypts, all of them are tried to decrypt. See Config.Keyring.
	Keyring []Secret `toml:"keyring"`
}

// publishedKeyring is what APISIX uses when its configuration names no keyring (contract section 6): everybody can read it, and what an
// APISIX wrote into an etcd cannot be read without it.
func publishedKeyring() []Secret { return []Secret{"qeddd145sfvddff3", "edd1c9f0985e76a2"} }

// Keyring returns the keys for secret fields of stored documents, the encrypting one first; none means that documents are stored as
// they are. On an etcd, which an APISIX may have filled, and in the mode "apisix" APISIX's published keys stand in for a keyring that is
// not configured.
func (c *Config) Keyring() []string {
	keys := c.Store.Encryption.Keyring
	if len(keys) == 0 && c.usesPublishedKeyring() {
		keys = publishedKeyring()
	}
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = k.Reveal()
	}
	return out
}

func (c *Config) usesPublishedKeyring() bool {
	return (c.Store.Provider == StoreEtcd || c.Compat.Mode == CompatAPISIX) && len(c.Store.Encryption.Keyring) == 0
}

func (k checker) store() {
	s := &k.c.Store
	k.oneOf("store.provider", s.Provider, StoreEmbedded, StoreEtcd, StoreFile, StoreMem)
	if s.Provider == StoreEmbedded && s.Path == "" {
		k.add("store.path", "expected the path of a file")
	}
	k.etcd(&s.Etcd)
	if s.File.Path == "" && s.Provider == StoreFile {
		k.add("store.file.path", "expected the path of a file that ends in .toml, .yaml or .yml")
	} else if s.File.Path != "" && !hasDocumentExtension(s.File.Path) {
		k.add("store.file.path", fmt.Sprintf("expected the path of a file that ends in .toml, .yaml or .yml, got %q", s.File.Path))
	}
	k.positive("store.file.interval", s.File.Interval)
	for i, key := range s.Encryption.Keyring {
		at := indexKey("store.encryption.keyring", i)
		if n := len(key); n != keyringKeyLength {
			k.add(at, fmt.Sprintf("expected %d characters, got %d", keyringKeyLength, n))
		} else if j := slices.Index(s.Encryption.Keyring[:i], key); j >= 0 {
			k.add(at, "expected a key of its own, this is also "+indexKey("store.encryption.keyring", j))
		}
	}
}

func hasDocumentExtension(path string) bool {
	return slices.ContainsFunc([]string{".toml", ".yaml", ".yml"}, func(ext string) bool { return strings.HasSuffix(path, ext) })
}

func (k checker) etcd(e *Etcd) {
	if len(e.Endpoints) == 0 {
		k.add("store.etcd.endpoints", `expected at least one URL such as "http://127.0.0.1:2379"`)
	}
	schemes := map[string]bool{}
	for i, endpoint := range e.Endpoints {
		u, err := url.Parse(endpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" ||
			u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			// Not quoted: people write passwords into URLs.
			k.add(indexKey("store.etcd.endpoints", i), `expected a URL such as "http://127.0.0.1:2379" of scheme http or https, without user and path`)
			continue
		}
		schemes[u.Scheme] = true
	}
	if len(schemes) > 1 {
		k.add("store.etcd.endpoints", "expected http or https for all endpoints, got both")
	}
	if !strings.HasPrefix(e.Prefix, "/") || strings.HasSuffix(e.Prefix, "/") || !isHeaderValue(e.Prefix) {
		k.add("store.etcd.prefix", fmt.Sprintf(`expected a prefix such as "/apisix", without a slash at its end, got %q`, e.Prefix))
	}
	k.positive("store.etcd.timeout", e.Timeout)
	k.number("store.etcd.startup_retry", e.StartupRetry, 0, 1000)
	k.together("store.etcd.user", e.User != "", "store.etcd.password", e.Password != "")
	k.together("store.etcd.tls_cert", e.TLSCert != "", "store.etcd.tls_key", e.TLSKey != "")
	for _, t := range []struct {
		key string
		set bool
	}{
		{"store.etcd.tls_ca", e.TLSCA != ""}, {"store.etcd.tls_cert", e.TLSCert != ""}, {"store.etcd.tls_server_name", e.TLSServerName != ""},
	} {
		if t.set && schemes["http"] {
			k.add(t.key, "expected https endpoints with it; TLS is not used with http")
		}
	}
}

// together refuses one of two settings without the other.
func (k checker) together(a string, hasA bool, b string, hasB bool) {
	switch {
	case hasA && !hasB:
		k.add(a, "expected "+b+" with it")
	case hasB && !hasA:
		k.add(b, "expected "+a+" with it")
	}
}

// storeWarnings says what is allowed but dangerous about the store.
func (c *Config) storeWarnings(warn func(format string, args ...any)) {
	e := &c.Store.Etcd
	if c.Store.Provider == StoreEtcd {
		if !e.TLSVerify && strings.HasPrefix(e.Endpoints[0], "https:") {
			warn("store.etcd.tls_verify is false: whoever sits between the gateway and etcd can read and change the configuration")
		}
		for _, endpoint := range e.Endpoints {
			if u, err := url.Parse(endpoint); err == nil && u.Scheme == "http" && e.Password != "" && !isLoopback(u.Host) {
				warn("store.etcd.password travels unencrypted to %s", endpoint)
			}
		}
	}
	published := c.usesPublishedKeyring()
	for _, key := range c.Store.Encryption.Keyring {
		published = published || slices.ContainsFunc(publishedKeyring(), func(p Secret) bool { return p.Equal(key.Reveal()) })
	}
	if published {
		warn("DANGER: store.encryption uses keys that are printed in APISIX's source: whoever reads the store can decrypt its secrets")
	}
}
