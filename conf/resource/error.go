package resource

import "regexp"

// Error is a refusal that the Admin API answers with: an HTTP status and the text of error_msg (contract sections 1.4 and 1.6).
// Nothing was changed when it is returned.
type Error struct {
	Status int    // 400, 404, 405, 503
	Msg    string // goes out as {"error_msg":Msg}
	// NotFound makes the body {"message":"Key not found"} instead (contract section 1.3).
	NotFound bool
}

func (e *Error) Error() string { return e.Msg }

// Invalid returns the 400 refusal with msg.
func Invalid(msg string) *Error { return &Error{Status: 400, Msg: msg} }

// KeyNotFound returns the 404 of contract section 1.3.
func KeyNotFound() *Error { return &Error{Status: 404, Msg: "Key not found", NotFound: true} }

// valuesInTexts are the places in which a refusal quotes what the document says.
var valuesInTexts = regexp.MustCompile(`(?s)(invalid plugin conf ).*( for plugin \[)|(failed to match pattern "(?:[^"\\]|\\.)*" with ).*|(but got: ).*`)

// Redact leaves out of a refusal what it quotes of the document, so that it can be shown to people who may not see the document.
func Redact(msg string) string { return valuesInTexts.ReplaceAllString(msg, "$1$3$4...$2") }
