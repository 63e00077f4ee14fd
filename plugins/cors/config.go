package cors

import (
	_ "embed"
	"errors"

	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/proxy/expr"
	"headgate/proxy/phase/wire"
)

var (
	//go:embed schema.json
	schemaJSON []byte
	//go:embed metadata.json
	metadataJSON []byte
)

// Config is what the operator writes. Lists are texts with commas.
type Config struct {
	// AllowOrigins lists origins. "*" allows all, "**" too, also together with credentials.
	AllowOrigins string
	// AllowOriginsByRegex has PCRE patterns; with any, they decide in the place of AllowOrigins.
	AllowOriginsByRegex []string
	// AllowOriginsByMetadata names lists of the plugin's metadata. What they allow is allowed; for others, AllowOrigins is asked where it
	// is not "*".
	AllowOriginsByMetadata []string
	// AllowMethods and AllowHeaders go to the client as they are. "**" stands for every method, and for the headers that it asks for.
	AllowMethods, AllowHeaders string
	// ExposeHeaders goes to the client as it is; empty: no line.
	ExposeHeaders string
	// MaxAge is how many seconds the client may remember the answer.
	MaxAge int64
	// AllowCredential lets the client send credentials.
	AllowCredential bool
	// TimingAllowOrigins and TimingAllowOriginsByRegex say who may see timings (Timing-Allow-Origin); the patterns come first.
	TimingAllowOrigins        string
	TimingAllowOriginsByRegex []string
}

var (
	errStar      = errors.New("you can not set '*' for other option when 'allow_credential' is true")
	errCharacter = errors.New("invalid value character in header")
)

// read reads conf, which satisfies the schema.
func read(conf []byte) (c Config, err error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return c, err
	}
	doc, _ := v.(map[string]any) // the empty array is also the empty object
	c = Config{AllowOrigins: "*", AllowMethods: "*", AllowHeaders: "*", MaxAge: 5}
	for name, field := range map[string]*string{
		"allow_origins": &c.AllowOrigins, "allow_methods": &c.AllowMethods, "allow_headers": &c.AllowHeaders,
		"expose_headers": &c.ExposeHeaders, "timing_allow_origins": &c.TimingAllowOrigins,
	} {
		if s, ok := doc[name].(string); ok {
			*field = s
		}
		if !wire.ValidValue([]byte(*field)) {
			return c, errCharacter
		}
	}
	c.AllowOriginsByRegex, c.AllowOriginsByMetadata = schema.Texts(doc, "allow_origins_by_regex"), schema.Texts(doc, "allow_origins_by_metadata")
	c.TimingAllowOriginsByRegex = schema.Texts(doc, "timing_allow_origins_by_regex")
	c.AllowCredential, _ = doc["allow_credential"].(bool)
	if n, ok := split.Integer(doc["max_age"]); ok {
		c.MaxAge = n
	}
	if c.AllowCredential {
		for _, s := range [...]string{c.AllowOrigins, c.AllowMethods, c.AllowHeaders, c.ExposeHeaders, c.TimingAllowOrigins} {
			if s == "*" {
				return c, errStar
			}
		}
	}
	return c, nil
}

func validate(conf []byte) error {
	c, err := read(conf)
	if err != nil {
		return err
	}
	for _, list := range [][]string{c.AllowOriginsByRegex, c.TimingAllowOriginsByRegex} {
		if _, err := expr.CompilePatterns(list, false); err != nil {
			return err
		}
	}
	return nil
}

// readMetadata returns the lists of origins of the plugin's metadata by their names.
func readMetadata(doc []byte) (map[string]any, error) {
	if len(doc) == 0 {
		return nil, nil
	}
	v, err := schema.DecodeJSON(doc)
	if err != nil {
		return nil, err
	}
	m, _ := v.(map[string]any)
	lists, _ := m["allow_origins"].(map[string]any)
	return lists, nil
}
