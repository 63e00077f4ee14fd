// Package phase is what a plugin author has to read: the exchange, the phases of one request, and how a plugin is declared.
//
// A plugin is a folder with one Kind. When a route is compiled, Kind.Build turns the plugin's configuration into an instance; the
// phases that the instance implements are found once, then, so that the request path runs over plain slices.
package phase

import "headgate/proxy/fault"

// Verdict is a plugin's decision about the exchange.
type Verdict uint8

const (
	// Continue goes on with the next plugin.
	Continue Verdict = iota
	// Stop ends the request phases: the plugin has set the answer (see Exchange.Answer).
	Stop
)

// Rewriter runs before the consumer is known; authentication sets it here.
type Rewriter interface{ Rewrite(x *Exchange) Verdict }

// Accessor runs with the consumer known: limits, breakers, the split.
type Accessor interface{ Access(x *Exchange) Verdict }

// Sender runs before every attempt, with the endpoint picked.
type Sender interface{ Send(x *Exchange) Verdict }

// Receiver runs when an upstream has answered, before anybody has changed the answer, last plugin first: for what keeps answers. It does not
// run for an answer of a plugin or of the gateway. lines are the header lines that the upstream has sent, a part of Response.Header; what
// is to be changed in there is changed in the response phase. The body is in Response.Body, which belongs to the exchange, or arrives in
// Response.Stream, for which Receive may put a stream that reads from it: io.EOF from Next says that the body is complete, Close alone that
// it is not, or not known to be.
type Receiver interface {
	Receive(x *Exchange, lines []Field)
}

// Responder runs when status and header of the answer are known and no byte has left; last plugin first.
type Responder interface{ Response(x *Exchange) }

// Chunker sees every piece of the body that passes. What it returns is sent instead of p and must stay valid until its next call;
// last says that no piece follows (p may be empty then). An error breaks the answer off, visibly for the client.
type Chunker interface {
	Chunk(x *Exchange, p []byte, last bool) ([]byte, error)
}

// Chooser is a Chunker that leaves some bodies as they are. Wants is asked once, after the response phase. When nobody wants the body, no
// Chunk is called: the body passes with the length that it was announced with.
type Chooser interface {
	Chunker
	Wants(x *Exchange) bool
}

// Finisher runs exactly once per exchange, after the last byte or the last error.
type Finisher interface{ Done(x *Exchange) }

// Closer runs once per instance, after the last exchange of the last snapshot that had it.
type Closer interface{ Close() }

// Kind declares a plugin: one value per folder, named in plugins/plugins.go.
type Kind struct {
	// Name as in the configuration.
	Name string
	// Priority orders plugins inside a phase, highest first (contract section 4.1).
	Priority int
	// Schema is the JSON Schema of the configuration; the Admin API serves it and validates with it before Validate runs.
	Schema []byte
	// Validate checks what the schema cannot say. It is pure; its error text goes to the operator. May be nil.
	Validate func(conf []byte) error
	// Build makes the instance for one route. It does no IO and starts nothing (see Env.Go). conf is the stored JSON and is not
	// kept. The instance must implement at least one phase. Validate and Build are called for several routes at a time.
	Build func(conf []byte, env Env) (any, error)
	// PreferRoute: in a global rule the plugin is passed over where the route has it too (contract section 2.7 item 4).
	PreferRoute bool
	// Consumer makes it an authentication plugin: consumers and credentials carry a configuration of their own kind. Such a plugin
	// sets the consumer in its Rewrite, with Exchange.Attach.
	Consumer *ConsumerKind
	// Uses names the kinds, other than those for authentication, that instances of this one may build; see Env.Plugin.
	Uses []string
	// MetadataSchema is the JSON Schema of the plugin's plugin_metadata document, nil when it has none. See Env.Metadata.
	MetadataSchema []byte
	// Encrypted names the members of the configuration that are sealed in a store with encryption; "." stands between levels.
	Encrypted []string
}

// ConsumerKind declares what an authentication plugin is told in a consumer or a credential (contract sections 1.2 and 4).
type ConsumerKind struct {
	// Schema is the JSON Schema of the consumer's configuration.
	Schema []byte
	// Validate checks what the schema cannot say, as Kind.Validate does. May be nil.
	Validate func(conf []byte) error
	// Identity is the member by which a request finds its consumer: "key", "username", "key_id". A string, unique among all consumers.
	Identity string
	// Build compiles the configuration into what Credential.Data holds. It is pure and does not keep conf.
	Build func(conf []byte) (any, error)
	// Encrypted is as Kind.Encrypted.
	Encrypted []string
}

// Upstream is somewhere an exchange can be sent: a compiled upstream document.
type Upstream interface {
	// Name is the operator's word for it: name, id, or the key of the document that holds it.
	Name() string
	// Forward sends the exchange and fills in its Response, or returns why it could not.
	Forward(x *Exchange) *fault.Fault
}

// Env is what a plugin may use while it is built.
type Env interface {
	// Owner is the key of the document that holds the plugin's configuration ("routes/1", "services/7"): the identity that state
	// belongs to. Two routes of one service that carry the service's plugin see the same Owner.
	Owner() string
	// Route describes the route being compiled; its bytes live as long as the instance. It is nil for a plugin of a consumer, of a
	// consumer group or of a global rule: such an instance serves many routes, and Exchange.Route tells which.
	Route() *Route
	// Metadata returns the plugin's plugin_metadata document, nil when there is none. The instance is built anew when it changes.
	Metadata() []byte
	// Directory is where an authentication plugin finds its consumers. It always shows those of the exchange's own snapshot.
	Directory() Directory
	// Slot reserves a private slot of the exchange; see Exchange.Slot.
	Slot() int
	// Upstream compiles an inline upstream document. name is used when the document has none; part tells several upstreams of
	// one plugin apart ("rules/0/branches/1") and is the identity by which connections and picking state survive an edit.
	Upstream(doc []byte, part, name string) (Upstream, error)
	// UpstreamByID returns the upstream document id; ok is false when there is none. Either way the route is compiled anew when
	// that document changes.
	UpstreamByID(id string) (u Upstream, ok bool)
	// Shared returns the state kept under Owner, plugin and part. When there is none, or when the owning document is edited, make is
	// called with the state of before (nil at first), which is still in use and may stay so, and returns the state to keep; that
	// becomes the state of before once this configuration is published. State that a compile does not ask for is dropped.
	Shared(part string, make func(before any) any) any
	// BranchCounter returns the counter of requests that the route sent to branch.
	BranchCounter(branch string) Counter
	// Recorder returns the per-route series of the prometheus plugin.
	Recorder(o RecorderOptions) Recorder
	// CompileExpr compiles a vars expression (contract section 2.4).
	CompileExpr(raw any) (Predicate, error)
	// Plugin builds an instance of another kind on behalf of this one: of a kind for authentication, for plugins that try several, or of
	// one that Kind.Uses names. The instance runs only when its builder calls it; it is closed without that.
	Plugin(name string, conf []byte) (any, error)
	// Number returns the number of a kind, for Exchange.PassOver; false when there is no such kind.
	Number(name string) (uint8, bool)
	// Go notes a goroutine that starts after the configuration is published and must end when done is closed.
	Go(run func(done <-chan struct{}))
}

// Counter counts exchanges; safe for concurrent use, allocates nothing.
type Counter interface{ Inc(x *Exchange) }

// RecorderOptions say how the per-route series are labelled.
type RecorderOptions struct {
	// PreferName labels with the names of route and service, where they have one, instead of their ids.
	PreferName bool
	// DisabledLabels names, by metric without prefix ("http_status"), labels whose value is left empty.
	DisabledLabels map[string][]string
}

// Recorder records a finished exchange in the per-route metrics.
type Recorder interface{ Record(x *Exchange) }

// Predicate is a compiled vars expression.
type Predicate interface{ True(x *Exchange) bool }

// Directory is where the authentication plugins of one kind find their consumers. Its cost does not depend on their number, and it
// allocates nothing.
type Directory struct{ kind uint8 }

// DirectoryOf returns the directory of the kind with that number in the list of all.
func DirectoryOf(kind uint8) Directory { return Directory{kind} }

// Credential returns the credential whose identity (see ConsumerKind.Identity) is id, nil when there is none. Identities are compared
// in constant time.
func (d Directory) Credential(x *Exchange, id []byte) *Credential {
	if x.Registry == nil {
		return nil
	}
	return x.Registry.Credential(d.kind, id)
}

// Consumer returns the consumer called name, nil when there is none: for anonymous_consumer.
func (d Directory) Consumer(x *Exchange, name string) *Principal {
	if x.Registry == nil {
		return nil
	}
	return x.Registry.Principal(name)
}

// Registry has the consumers of one snapshot.
type Registry interface {
	Credential(kind uint8, id []byte) *Credential
	Principal(name string) *Principal
}

// Principal is a compiled consumer. It is immutable.
type Principal struct {
	Consumer
	// Chain has the plugins of the consumer itself, those for authentication apart; nil without any.
	Chain *Chain
}

// Credential is one way for a consumer to show who it is.
type Credential struct {
	*Principal
	// ID is the id of the credential document, "" when the consumer itself holds the configuration.
	ID string
	// Data is what ConsumerKind.Build returned.
	Data any
}
