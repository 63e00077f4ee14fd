package proxy

// Lenient is what is let in although the gateway would rather not, one field for each choice that RFC 9110 and RFC 9112 leave to the
// recipient (conf.GatewayStrict has their sections). The zero value is the strictest. What is let in is brought into the strict form, and then
// checked like everything else, so that no field can let through what must be refused.
type Lenient struct {
	// BareLF ends header lines at an LF alone, FoldedLines joins a line with the one that it goes on in, ControlBytes makes spaces of
	// control bytes in values, RepeatedLength takes equal lengths for one, LineSpaces takes white space in the request line for one
	// space. They are for HTTP/1 only.
	BareLF, FoldedLines, ControlBytes, RepeatedLength, LineSpaces bool
	// Fragments cuts "#" and what follows off the target.
	Fragments bool
	// Methods takes every token for a method, except those whose answers are framed in a way of their own when written in capitals.
	Methods bool
	// Trace forwards TRACE.
	Trace bool
	// Expectations ignores those that are unknown.
	Expectations bool
	// Underscores passes on lines with an underscore in their name, except those whose twin with hyphens is the gateway's business.
	Underscores bool
}

// mends says whether heads have to be rewritten before they are parsed.
func (l Lenient) mends() bool {
	return l.BareLF || l.FoldedLines || l.ControlBytes || l.RepeatedLength || l.LineSpaces
}
