// Package llm knows what goes over the wire of model providers.
package llm

import (
	"bytes"

	"github.com/valyala/fastjson"
)

// maxEvent bounds what is kept of one event: a longer one has content, whatever it says.
const maxEvent = 64 << 10

// FirstContent looks in an event stream for the first event that has something of the answer in it: not the head of a message, not a role, not
// an empty delta, not a comment. The zero value is at the start of a stream; its buffers are kept by Reset, so that it allocates nothing
// once they have grown. It is not safe for concurrent use.
type FirstContent struct {
	line, data []byte
	afterCR    bool // a line feed that follows belongs to the line before
	begun      bool // past a byte order mark
	any        bool // the event has a data field
	found      bool
	parser     fastjson.Parser
}

// Reset makes f ready for another stream.
func (f *FirstContent) Reset() {
	f.line, f.data = f.line[:0], f.data[:0]
	f.afterCR, f.begun, f.any, f.found = false, false, false, false
}

// Feed takes the next bytes of the stream, cut anywhere, and returns whether content has come.
func (f *FirstContent) Feed(p []byte) bool {
	for len(p) > 0 && !f.found {
		if f.afterCR {
			f.afterCR = false
			if p[0] == '\n' {
				p = p[1:]
				continue
			}
		}
		end := bytes.IndexAny(p, "\r\n")
		if end < 0 {
			f.keep(p)
			break
		}
		f.keep(p[:end])
		f.afterCR = p[end] == '\r'
		p = p[end+1:]
		if !f.found {
			f.endLine()
		}
	}
	return f.found
}

func (f *FirstContent) keep(p []byte) {
	if len(f.line)+len(f.data)+len(p) > maxEvent {
		f.found = true
		return
	}
	f.line = append(f.line, p...)
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// endLine takes the line that has gathered: a field, a comment, or the end of an event.
func (f *FirstContent) endLine() {
	line := f.line
	f.line = f.line[:0]
	if !f.begun {
		f.begun = true
		line = bytes.TrimPrefix(line, byteOrderMark)
	}
	if len(line) == 0 {
		if f.any {
			f.found = f.hasContent(f.data)
		}
		f.data, f.any = f.data[:0], false
		return
	}
	name, value, _ := bytes.Cut(line, []byte(":"))
	if string(name) != "data" {
		return
	}
	if len(value) > 0 && value[0] == ' ' {
		value = value[1:]
	}
	if f.any {
		f.data = append(f.data, '\n')
	}
	f.data, f.any = append(f.data, value...), true
}

// hasContent judges the data of one event. What is not known to be without content has some: a clock that stops too early does less harm than
// one that breaks off a stream it does not understand. The end of a stream and its errors stop the clock too.
func (f *FirstContent) hasContent(data []byte) bool {
	v, err := f.parser.ParseBytes(data)
	if err != nil || v.Type() != fastjson.TypeObject {
		return len(bytes.TrimSpace(data)) > 0
	}
	if kind := v.GetStringBytes("type"); kind != nil {
		if known, has := typedEvent(kind, v); known {
			return has
		}
	}
	if choices := v.Get("choices"); choices != nil && choices.Type() == fastjson.TypeArray {
		return hasAny(choices.GetArray(), choiceHasContent) || notNull(v.Get("error"))
	}
	if candidates := v.Get("candidates"); candidates != nil && candidates.Type() == fastjson.TypeArray {
		return hasAny(candidates.GetArray(), candidateHasContent)
	}
	return true
}

// typedEvent judges the events of Anthropic's messages and OpenAI's responses, which name their kind.
func typedEvent(kind []byte, v *fastjson.Value) (known, has bool) {
	switch string(kind) {
	case "message_start", "content_block_start", "content_block_stop", "ping",
		"response.created", "response.queued", "response.in_progress", "response.output_item.added", "response.content_part.added":
		return true, false
	case "content_block_delta":
		d := v.Get("delta")
		for _, name := range [...]string{"text", "partial_json", "thinking", "signature", "citation"} {
			if filled(d.Get(name)) {
				return true, true
			}
		}
		return true, false
	}
	if bytes.HasPrefix(kind, []byte("response.")) && bytes.HasSuffix(kind, []byte(".delta")) {
		return true, filled(v.Get("delta"))
	}
	return false, false
}

func choiceHasContent(c *fastjson.Value) bool {
	if filled(c.Get("text")) || notNull(c.Get("finish_reason")) {
		return true
	}
	for _, from := range [...]string{"delta", "message"} {
		d := c.Get(from)
		for _, name := range [...]string{"content", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call", "audio"} {
			if filled(d.Get(name)) {
				return true
			}
		}
	}
	return false
}

func candidateHasContent(c *fastjson.Value) bool {
	if notNull(c.Get("finishReason")) {
		return true
	}
	return hasAny(c.GetArray("content", "parts"), func(part *fastjson.Value) bool {
		text := part.Get("text")
		o, err := part.Object()
		return filled(text) || err == nil && text == nil && o.Len() > 0
	})
}

func hasAny(list []*fastjson.Value, has func(*fastjson.Value) bool) bool {
	for _, v := range list {
		if has(v) {
			return true
		}
	}
	return false
}

// filled says that v is there and is not null, "", [] or {}.
func filled(v *fastjson.Value) bool {
	if !notNull(v) {
		return false
	}
	switch v.Type() {
	case fastjson.TypeString:
		return len(v.GetStringBytes()) > 0
	case fastjson.TypeArray:
		return len(v.GetArray()) > 0
	case fastjson.TypeObject:
		return v.GetObject().Len() > 0
	}
	return true
}

func notNull(v *fastjson.Value) bool { return v != nil && v.Type() != fastjson.TypeNull }
