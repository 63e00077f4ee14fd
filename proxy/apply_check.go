package proxy

import (
	"slices"
	"strings"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/snapshot"
)

func isInternal(key string) bool { return strings.HasPrefix(key, Internal) }

// validate judges a document as a whole (contract section 1.4, steps 5 and 6).
func (c *checks) validate(kind resource.Kind, id string, raw []byte) error {
	doc, err := schema.DecodeJSON(raw)
	if err != nil {
		return resource.Invalid("invalid configuration: " + err.Error())
	}
	m, ok := doc.(map[string]any)
	if !ok {
		return resource.Invalid("invalid configuration")
	}
	return c.validateDecoded(kind, id, m)
}

func (c *checks) validateDecoded(kind resource.Kind, id string, doc map[string]any) error {
	// A typed nil must not become a non-nil error.
	if refusal := resource.Validate(kind, id, doc, c); refusal != nil {
		return refusal
	}
	return nil
}

// world is which documents there are besides the one that is judged.
type world interface {
	Exists(key string) bool
	Document(key string) []byte
}

// checks judges the documents of one change, and implements resource.Env for that. Several goroutines may use it at a time.
type checks struct {
	*snapshot.Compiler
	a *Applier
	world
	judge *snapshot.Judge // nil unless there are many
}

// manyDocuments are worth it to remember what passed.
const manyDocuments = 1000

// checks judges n documents in the world that world describes.
func (a *Applier) checks(world world, n int) *checks {
	c := &checks{Compiler: a.compiler, a: a, world: world}
	if n >= manyDocuments {
		c.judge = a.compiler.Judge()
	}
	return c
}

func (c *checks) CheckVars(raw any) error {
	_, err := phase.CompilePredicate(raw)
	return err
}

// CheckPlugin implements resource.Env.
func (c *checks) CheckPlugin(name string, conf any, use resource.Use) error {
	if c.judge == nil {
		return c.Compiler.CheckPlugin(name, conf, use)
	}
	return c.judge.CheckPlugin(name, conf, use)
}

// GlobalRuleWith is for edits: of two rules that are stored already the compiler judges.
func (c *checks) GlobalRuleWith(plugin, except string) string {
	if c.stored() {
		return ""
	}
	return c.Compiler.GlobalRuleWith(c.Document, plugin, except)
}

// stored says that the document is judged because it is in the store already. What it must not share with another is then for the
// compiler to decide, which tries again when the other one goes.
func (c *checks) stored() bool {
	_, yes := c.world.(everything)
	return yes
}

// CredentialOwner is for edits. It passes over what is going away with the same change.
func (c *checks) CredentialOwner(plugin string, conf map[string]any, except string) (attr, owner string) {
	if c.stored() {
		return "", ""
	}
	attr, owner = c.Compiler.CredentialOwner(plugin, conf, except)
	if owner == "" {
		return "", ""
	}
	plugins, _ := resource.Members(c.Document(owner))["plugins"].(map[string]any)
	its, _ := plugins[plugin].(map[string]any)
	if its == nil || its[attr] != conf[attr] { // it goes, or gives the identity up, with the same change
		return "", ""
	}
	return attr, owner
}

func (c *checks) Lenient(name string) bool { return c.a.lenient != nil && c.a.lenient(name) }

// everything is a world in which any reference leads somewhere: what an event refers to may come later, and a request meets what is
// missing with a fault.
type everything struct{}

func (everything) Exists(key string) bool {
	_, _, err := splitKey(key)
	return err == nil
}

// Document knows no other document: what it says now is not what decides about this one, because it may be another a moment later, and
// nobody would judge this one again.
func (everything) Document(string) []byte { return nil }

// view is what is in force, changed by edits; a nil value is a deletion.
type view struct {
	a     *Applier
	edits map[string][]byte
}

func (v view) has(key string) bool {
	_, edited := v.edits[key]
	return edited
}

// Exists implements world.
func (v view) Exists(key string) bool {
	if doc, edited := v.edits[key]; edited {
		return doc != nil
	}
	_, ok := v.a.docs.get(key)
	return ok
}

// Document implements world.
func (v view) Document(key string) []byte {
	if doc, edited := v.edits[key]; edited {
		return doc
	}
	return v.a.inForce(key)
}

// mentioning is the view without the documents that cannot refer to id.
func (v view) mentioning(id string) resource.Docs {
	// Of "jack/credentials/c1" and "vault/v1" the last part is enough.
	return mentions{v, id[strings.LastIndexByte(id, '/')+1:]}
}

type mentions struct {
	view
	id string
}

// Range implements resource.Docs on the config goroutine.
func (m mentions) Range(kind string, f func(key string, value []byte) bool) {
	users := slices.DeleteFunc(m.a.docs.users.to(m.id), func(key string) bool { return m.has(key) || kindOfKey(key) != kind })
	slices.Sort(users)
	for _, key := range users {
		if !f(key, m.a.inForce(key)) {
			return
		}
	}
	for key, value := range m.edits {
		if value != nil && kindOfKey(key) == kind && !f(key, value) {
			return
		}
	}
}

// inForce implements snapshot.Lookup on the config goroutine.
func (a *Applier) inForce(key string) []byte {
	if item, ok := a.docs.get(key); ok {
		return item.Value
	}
	return nil
}
