package phase

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// Content types that a plugin's own answers carry (contract section 4, apisix-observed 2.6).
const (
	TypeText = "text/plain; charset=utf-8"
	TypeHTML = "text/html; charset=utf-8"
	TypeJSON = "application/json"
)

var nameContentType = []byte("Content-Type")

// Answer makes the answer from a plugin: status, the content type ("" for none) and the body, which must stay valid until Done.
// Headers that were set before stay.
func (x *Exchange) Answer(status int, contentType string, body []byte) {
	r := &x.Response
	r.Status, r.Body, r.Source = status, body, FromPlugin
	if r.Stream != nil {
		r.Stream.Close()
		r.Stream = nil
	}
	r.Trailers.Drop()
	r.Size, r.HeadLength = -1, -1
	if contentType == "" {
		r.Header.Del("Content-Type")
		return
	}
	r.Header.Set(nameContentType, x.keepString(contentType))
}

// AnswerError answers {"error_msg":msg} with a newline behind it. msg must not need escaping in JSON.
func (x *Exchange) AnswerError(status int, msg string) {
	b := append(x.Arena(), `{"error_msg":"`...)
	b = append(b, msg...)
	b = append(b, "\"}\n"...)
	x.Answer(status, TypeText, x.Commit(b))
}

// MessageBody returns {"member":"text"} with a newline behind it, the body of most answers of the contract's plugins. It is for texts that
// the operator has written, while an instance is built. What is no UTF-8 in them is replaced.
func MessageBody(member, text string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b) // ends with a newline
	enc.SetEscapeHTML(false)
	_ = enc.Encode(map[string]string{member: text}) // strings in memory: it never fails
	return b.Bytes()
}

// AnswerPage answers the short HTML page of a status; statuses that have none get an empty body and no content type.
func (x *Exchange) AnswerPage(status int) { x.answerPage(status, "") }

// answerPage is AnswerPage with a note, which is also the title, below the words of the status.
func (x *Exchange) answerPage(status int, note string) {
	reason := PageTitle(status)
	if reason == "" {
		x.Answer(status, "", nil)
		return
	}
	number := x.Commit(append(strconv.AppendInt(x.Arena(), int64(status), 10), ' '))
	title := reason
	if note != "" {
		title = note
	}
	b := append(x.Arena(), "<html>\r\n<head><title>"...)
	b = append(append(append(b, number...), title...), "</title></head>\r\n<body>\r\n<center><h1>"...)
	b = append(append(append(b, number...), reason...), "</h1></center>\r\n"...)
	if note != "" {
		b = append(append(append(b, "<center>"...), note...), "</center>\r\n"...)
	}
	b = append(b, "</body>\r\n</html>\r\n"...)
	kind := TypeHTML
	if status == 301 || status == 302 {
		kind = "text/html"
	}
	x.Answer(status, kind, x.Commit(b))
}

func (x *Exchange) keepString(s string) []byte {
	return x.Commit(append(x.Arena(), s...))
}

// PageTitle returns the words that the page of a status carries, "" for a status without a page.
func PageTitle(status int) string {
	switch status {
	case 301:
		return "Moved Permanently"
	case 302:
		return "Found"
	case 303:
		return "See Other"
	case 307:
		return "Temporary Redirect"
	case 308:
		return "Permanent Redirect"
	case 400:
		return "Bad Request"
	case 401:
		return "Authorization Required"
	case 402:
		return "Payment Required"
	case 403:
		return "Forbidden"
	case 404:
		return "Not Found"
	case 405:
		return "Not Allowed"
	case 406:
		return "Not Acceptable"
	case 408:
		return "Request Time-out"
	case 409:
		return "Conflict"
	case 410:
		return "Gone"
	case 411:
		return "Length Required"
	case 412:
		return "Precondition Failed"
	case 413:
		return "Request Entity Too Large"
	case 414:
		return "Request-URI Too Large"
	case 415:
		return "Unsupported Media Type"
	case 416:
		return "Requested Range Not Satisfiable"
	case 421:
		return "Misdirected Request"
	case 429:
		return "Too Many Requests"
	case 431:
		return "Request Header Fields Too Large"
	case 500:
		return "Internal Server Error"
	case 501:
		return "Not Implemented"
	case 502:
		return "Bad Gateway"
	case 503:
		return "Service Temporarily Unavailable"
	case 504:
		return "Gateway Time-out"
	case 505:
		return "HTTP Version Not Supported"
	case 507:
		return "Insufficient Storage"
	}
	return ""
}
