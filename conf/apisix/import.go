package apisix

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"headgate/conf"
	"headgate/conf/resource"
)

// Names of the two files in errors.
const (
	configName    = "config.yaml"
	resourcesName = "apisix.yaml"
)

// Import turns the conf/config.yaml of an APISIX installation (contract section 6) and, when there is one, its apisix.yaml into the
// text of a headgate.toml that conf.Parse accepts. Either may be nil. What APISIX takes from the environment, ${{NAME}}, the result takes
// from there too, as ${NAME}; Import itself reads no environment. Secrets that stand in the files stand in the result.
//
// notes has one line for everything that could not be carried, each with the key and the reason, and for what the operator should know;
// no note quotes a secret. The error, a conf.Problems, says that a file could not be read.
func Import(configYAML, apisixYAML []byte) (toml []byte, notes []string, err error) {
	config, err := DecodeYAML(configName, configYAML, nil)
	if err != nil {
		return nil, nil, err
	}
	im := importer{root: config.Root, rules: rules()}
	if apisixYAML != nil {
		docs, more, err := ReadResources(resourcesName, apisixYAML, nil)
		if err != nil {
			return nil, nil, err
		}
		for _, note := range more {
			im.notes = append(im.notes, resourcesName+": "+note)
		}
		for _, d := range docs {
			im.document(d)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(im.root)) {
		im.walk(name, im.root[name])
	}
	im.deployment(apisixYAML != nil)
	im.note("compat.mode", `stays "safe": for every behaviour of APISIX, the unsafe ones too (https upstreams are not verified), write "apisix"`)
	toml, err = im.settle()
	if err != nil {
		return nil, nil, err
	}
	return toml, im.notes, nil
}

// importer gathers what goes into the result.
type importer struct {
	root      map[string]any
	rules     map[string]rule
	settings  []setting
	keys      []adminKey
	zones     []cacheZone
	documents []Document
	notes     []string
}

// setting is one line of the result.
type setting struct {
	key      string // as in headgate.toml: "gateway.listen"
	value    any    // string, template, bool, int or []string
	from     string // the key of APISIX
	variable bool   // it depends on the environment
}

// template is a string in which ${...} stays as it is.
type template string

type adminKey struct {
	name, key, role, from string
	variable              bool
}

func (im *importer) note(key, why string) { im.notes = append(im.notes, key+": "+why) }

// set adds a setting, or replaces it.
func (im *importer) set(key, from string, value any) {
	s := setting{key: key, value: value, from: from}
	switch v := value.(type) {
	case string:
		s.variable = refers(v)
	case []string:
		s.variable = slices.ContainsFunc(v, refers)
	}
	for i := range im.settings {
		if im.settings[i].key == key {
			im.settings[i] = s
			return
		}
	}
	im.settings = append(im.settings, s)
}

func (im *importer) get(key string) (any, bool) {
	for _, s := range im.settings {
		if s.key == key {
			return s.value, true
		}
	}
	return nil, false
}

// walk applies the rule of path to v, or descends, or notes that there is no rule.
func (im *importer) walk(path string, v any) {
	if r, ok := im.rules[path]; ok {
		if why := r(im, path, v); why != "" {
			im.note(path, why)
		}
		return
	}
	switch v := v.(type) {
	case nil:
		return
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			im.walk(path+"."+name, v[name])
		}
		return
	}
	im.note(shorten(path), "Headgate has no such setting")
}

// lookup returns what stands at the path of mappings in config.yaml, nil when nothing does.
func (im *importer) lookup(path ...string) any {
	var v any = im.root
	for _, name := range path {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	return v
}

// document adds a resource.
func (im *importer) document(d Document) {
	at := fmt.Sprintf("%s:%d: %s", resourcesName, d.Line, d.Key)
	nulls, references := survey(d.Value)
	if nulls {
		im.note(at, "members without a value are left out, TOML has no null")
	}
	if references {
		im.note(at, "contains ${{...}}, which is text in Headgate's resources: write the value, or $env://NAME where a plugin takes secrets")
	}
	if _, err := resource.ToTOML(d.Value); err != nil {
		im.note(at, "left out: "+err.Error())
		return
	}
	im.documents = append(im.documents, d)
}

// survey reports whether a document has members that are null, and texts that refer to the environment.
func survey(v any) (nulls, references bool) {
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			n, r := survey(e)
			nulls, references = nulls || n || e == nil, references || r
		}
	case []any:
		for _, e := range v {
			n, r := survey(e)
			nulls, references = nulls || n, references || r
		}
	case string:
		references = reference.MatchString(v)
	}
	return nulls, references
}

// deployment decides where the resources are kept, which several keys say together.
func (im *importer) deployment(resources bool) {
	role, _ := im.lookup("deployment", "role").(string)
	if role == "" {
		role = "traditional"
	}
	provider, _ := im.lookup("deployment", "role_"+role, "config_provider").(string)
	if provider == "" {
		provider = "etcd"
	}
	at := "deployment.role_" + role + ".config_provider"
	switch provider {
	case "etcd":
		im.set("store.provider", at, conf.StoreEtcd)
		im.publishedKeyring()
	case "yaml":
		im.set("store.provider", at, conf.StoreMem)
		if !resources {
			im.note(at, `the resources stand in apisix.yaml: import that file too, or name it in [store.file] with store.provider = "file"`)
		}
	default:
		im.note(at, fmt.Sprintf("Headgate cannot take its configuration from %q", shorten(provider)))
	}
	switch role {
	case "traditional":
	case "data_plane":
		im.set("admin.enabled", "deployment.role", false)
	default:
		im.note("deployment.role", fmt.Sprintf("%q: a Headgate with an Admin API serves traffic too", shorten(role)))
	}
	if enabled, ok := im.get("admin.enabled"); ok && enabled == false {
		return
	}
	if _, ok := im.get("admin.listen"); !ok {
		im.note("deployment.admin.admin_listen", "is not set: APISIX listens on 0.0.0.0:9180 then, Headgate on "+conf.Default().Admin.Listen)
	}
}

// publishedKeyring: without a keyring of its own an APISIX encrypts with the keys of its source, and its etcd is read with them only.
func (im *importer) publishedKeyring() {
	if _, ok := im.get("store.encryption.keyring"); ok {
		return
	}
	c := conf.Default()
	c.Store.Provider, c.Compat.Mode = conf.StoreEtcd, conf.CompatAPISIX
	im.set("store.encryption.keyring", "apisix.data_encryption.keyring", c.Keyring())
	im.note("apisix.data_encryption.keyring", "is not set: APISIX's published keys are written into store.encryption.keyring, everybody knows them")
}

// settle writes the result and leaves out what conf.Parse refuses, with its reason as the note.
func (im *importer) settle() ([]byte, error) {
	for {
		text, err := im.render()
		if err != nil {
			return nil, err
		}
		_, err = conf.Parse("headgate.toml", text, func(string) (string, bool) { return placeholder, true }, nil)
		if err == nil {
			return text, nil
		}
		problems := conf.Problems(nil)
		if !errors.As(err, &problems) {
			return nil, err
		}
		dropped, open := false, false
		for _, p := range problems {
			switch im.drop(p) {
			case problemDropped:
				dropped = true
			case problemUnknown:
				open = true
			}
		}
		switch {
		case !dropped && open:
			return nil, err
		case !dropped: // all of them are about values that only the environment knows
			return text, nil
		}
	}
}

// placeholder stands for every variable of the environment while the result is tried.
const placeholder = "1"

type verdict int

const (
	problemUnknown verdict = iota
	problemDropped
	problemOfEnvironment
)

// drop removes what the problem is about.
func (im *importer) drop(p conf.Problem) verdict {
	for i, s := range im.settings {
		if p.Key != s.key && !strings.HasPrefix(p.Key, s.key+"[") {
			continue
		}
		if s.variable {
			return problemOfEnvironment
		}
		im.note(s.from, "left out: "+p.Key+": "+p.Msg)
		im.settings = slices.Delete(im.settings, i, i+1)
		return problemDropped
	}
	var i int
	if n, _ := fmt.Sscanf(p.Key, "admin.keys[%d]", &i); n == 1 && i < len(im.keys) {
		k := im.keys[i]
		if k.variable {
			return problemOfEnvironment
		}
		im.note(k.from, "left out: "+p.Msg)
		im.keys = slices.Delete(im.keys, i, i+1)
		return problemDropped
	}
	if n, _ := fmt.Sscanf(p.Key, "proxy_cache.zones[%d]", &i); n == 1 && i < len(im.zones) {
		z := im.zones[i]
		if refers(z.path) || refers(z.name) {
			return problemOfEnvironment
		}
		im.note(z.from, "left out: "+p.Msg)
		im.zones = slices.Delete(im.zones, i, i+1)
		return problemDropped
	}
	kind, _, _ := strings.Cut(p.Key, "[")
	if n, _ := fmt.Sscanf(strings.TrimPrefix(p.Key, kind), "[%d]", &i); n == 1 {
		for j, d := range im.documents {
			if kindOf(d.Key) != kind {
				continue
			}
			if i--; i < 0 {
				im.note(fmt.Sprintf("%s:%d: %s", resourcesName, d.Line, d.Key), "left out: "+p.Msg)
				im.documents = slices.Delete(im.documents, j, j+1)
				return problemDropped
			}
		}
	}
	return problemUnknown
}
