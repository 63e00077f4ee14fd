package proxy

import (
	"bytes"
	"fmt"
	"io"

	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

// eventTail is how a stream of events has ended so far.
type eventTail struct {
	last [4]byte
	any  bool
}

func (t *eventTail) note(piece []byte) {
	n := len(piece)
	if n >= len(t.last) {
		copy(t.last[:], piece[n-len(t.last):])
	} else {
		copy(t.last[:], t.last[n:])
		copy(t.last[len(t.last)-n:], piece)
	}
	t.any = t.any || n > 0
}

// between says that no event has been begun.
func (t *eventTail) between() bool {
	end := t.last[2:]
	return !t.any || string(end) == "\n\n" || string(end) == "\r\r" || string(t.last[:]) == "\r\n\r\n" || string(t.last[1:]) == "\n\r\n"
}

// inLine says that the last line has not been ended.
func (t *eventTail) inLine() bool { return t.any && t.last[3] != '\n' && t.last[3] != '\r' }

// lament tells the client of an event stream why it ends here, with an event that clients of its kind take for an error. The answer is
// broken off all the same: what comes last is not the end of the body.
func (b *body) lament(w io.Writer, end error) {
	f, ok := end.(*fault.Fault)
	x := b.x
	if !ok || f.Side == fault.Client || b.fixed {
		return
	}
	if _, encoded := x.Response.Header.Get("Content-Encoding"); encoded && (!b.coded || !x.chunked()) {
		return
	}
	kind, _ := x.Response.Header.Get("Content-Type")
	if kind, _, _ = bytes.Cut(kind, []byte{';'}); !phase.EqualName(bytes.TrimSpace(kind), "text/event-stream") {
		return
	}
	var event []byte
	if b.tail.inLine() {
		event = append(event, '\n')
	}
	event = appendErrorEvent(event, x.Request.Path, f, !b.tail.between())
	if b.coded { // by the plugin that the event now goes through, like all before it
		var err error
		if event, err = x.Chunk(event, false); err != nil {
			return
		}
	}
	n, _ := w.Write(event)
	x.Response.Sent += int64(n)
}

// appendErrorEvent writes the event in the form that clients of the API at path know; of any other one, in that of OpenAI, with a name.
// within says that another event has been begun, which must not pass for a whole one: it becomes a part of this one, which then needs a
// name to be known for an error.
func appendErrorEvent(dst []byte, path []byte, f *fault.Fault, within bool) []byte {
	message := "the upstream has broken off its answer"
	if f.Status == fault.ReadTimeout.Status {
		message = "the upstream took too long to go on with its answer"
	}
	is := func(suffix string) bool { return bytes.HasSuffix(path, []byte(suffix)) }
	named, data := true, ""
	switch {
	case is("/messages"): // Anthropic
		kind := "api_error"
		if f.Status == 504 {
			kind = "timeout_error"
		}
		data = fmt.Sprintf(`{"type":"error","error":{"type":%q,"message":%q}}`, kind, message)
	case is("/responses"): // OpenAI
		data = fmt.Sprintf(`{"type":"error","code":%q,"message":%q,"param":null}`, f.Code, message)
	case is(":streamGenerateContent"): // Gemini
		status := "UNAVAILABLE"
		if f.Status == 504 {
			status = "DEADLINE_EXCEEDED"
		}
		named, data = false, fmt.Sprintf(`{"error":{"code":%d,"message":%q,"status":%q}}`, f.Status, message, status)
	default:
		named = !is("/completions")
		data = fmt.Sprintf(`{"error":{"message":%q,"type":"server_error","param":null,"code":%q}}`, message, f.Code)
	}
	if named || within {
		dst = append(dst, "event: error\n"...)
	}
	return append(append(append(dst, "data: "...), data...), "\n\n"...)
}
