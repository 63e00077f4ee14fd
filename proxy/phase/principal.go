package phase

// The lines that tell the upstream who the consumer is. What a client sends under these names never passes (see proxy/edge.go).
var (
	nameConsumer   = []byte("X-Consumer-Username")
	nameCredential = []byte("X-Credential-Identifier")
	nameCustomID   = []byte("X-Consumer-Custom-ID")
)

// Attach makes c the consumer of the exchange: authentication plugins call it from Rewrite. The lines that name the consumer go to the
// upstream, those that c has no value for are taken away (contract section 2.7).
func (x *Exchange) Attach(c *Credential) {
	x.AttachPrincipal(c.Principal)
	x.Consumer.CredentialID = c.ID
	x.identify(nameCredential, c.ID)
}

// AttachPrincipal makes p the consumer of the exchange without any credential, as anonymous_consumer does.
func (x *Exchange) AttachPrincipal(p *Principal) {
	x.principal, x.Consumer = p, p.Consumer
	x.identify(nameConsumer, p.Name)
	x.identify(nameCredential, "")
	x.identify(nameCustomID, p.CustomID)
}

func (x *Exchange) identify(name []byte, value string) {
	if value == "" {
		x.Request.Header.Del(string(name))
		return
	}
	x.Request.Header.Set(name, x.keepString(value))
}
