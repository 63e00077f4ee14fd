package conf

// GatewayStrict are the choices in which the gateway is stricter with requests than the RFCs demand. Each is true by default: what it
// names is refused, or dropped. What false lets in goes on in the strict form; nothing that must be refused passes, whatever they say.
type GatewayStrict struct {
	BareLF         bool `toml:"bare_lf"`         // lines of the header that end in LF alone (RFC 9112 section 2.2)
	FoldedLines    bool `toml:"folded_lines"`    // header lines that go on in the next one (RFC 9112 section 5.2)
	ControlBytes   bool `toml:"control_bytes"`   // in header values, other than CR, LF and NUL (RFC 9110 section 5.5)
	RepeatedLength bool `toml:"repeated_length"` // one Content-Length several times (RFC 9112 section 6.3)
	LineSpaces     bool `toml:"line_spaces"`     // more than one space between the words of a request line (RFC 9112 section 3)
	Fragments      bool `toml:"fragments"`       // in request targets (RFC 9112 section 3.2)
	Methods        bool `toml:"methods"`         // that are not written in capitals (RFC 9110 section 9.1)
	Trace          bool `toml:"trace"`           // the method TRACE (RFC 9110 section 9.3.8)
	Expectations   bool `toml:"expectations"`    // other than 100-continue (RFC 9110 section 10.1.1)
	// UnderscoreNames are header names with an underscore, which many servers take for a hyphen. Unset, they are dropped unless
	// Compat.Mode is CompatAPISIX, which lets them pass.
	UnderscoreNames Toggle `toml:"underscore_names"`
}

// DropsUnderscores says whether header lines with an underscore in their name are dropped.
func (c *Config) DropsUnderscores() bool {
	switch c.Gateway.Strict.UnderscoreNames {
	case ToggleOn:
		return true
	case ToggleOff:
		return false
	}
	return c.Compat.Mode != CompatAPISIX
}

func allStrict() GatewayStrict {
	return GatewayStrict{
		BareLF: true, FoldedLines: true, ControlBytes: true, RepeatedLength: true, LineSpaces: true, Fragments: true,
		Methods: true, Trace: true, Expectations: true,
	}
}
