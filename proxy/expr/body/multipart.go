package body

import "bytes"

// maxBoundary is the longest boundary (RFC 2046 section 5.1.1).
const maxBoundary = 70

// multipartArg returns the content of the last part with that name (RFC 7578). A body whose last delimiter is missing has none.
func multipartArg(contentType, body []byte, name string) (value []byte, ok bool) {
	_, params, _ := bytes.Cut(contentType, []byte{';'})
	boundary, _ := parameter(params, "boundary")
	if len(boundary) == 0 || len(boundary) > maxBoundary {
		return nil, false
	}
	_, rest, last := nextPart(body, boundary, true)
	for rest != nil && !last {
		var part []byte
		if part, rest, last = nextPart(rest, boundary, false); rest == nil {
			return nil, false
		}
		if head, content, found := cutHead(part); found && hasName(head, name) {
			value, ok = content, true
		}
	}
	return value, ok && last
}

// nextPart cuts text at the next delimiter line. rest is nil when there is none; last says that it was the closing one.
func nextPart(text, boundary []byte, first bool) (part, rest []byte, last bool) {
	for from := 0; ; {
		i := bytes.Index(text[from:], boundary)
		if i < 0 {
			return nil, nil, false
		}
		start := from + i
		from = start + len(boundary)
		before := text[:start]
		if !bytes.HasSuffix(before, []byte("--")) {
			continue
		}
		before = before[:len(before)-2]
		switch {
		case bytes.HasSuffix(before, []byte("\r\n")):
			before = before[:len(before)-2]
		case first && len(before) == 0:
		default:
			continue
		}
		after := text[from:]
		if bytes.HasPrefix(after, []byte("--")) {
			return before, after[2:], true
		}
		if line := bytes.TrimLeft(after, " \t"); bytes.HasPrefix(line, []byte("\r\n")) {
			// The line break stays: it may be the one before the next delimiter.
			return before, line, false
		}
	}
}

// cutHead splits a part, which begins with the line break behind its delimiter, into its header lines and its content.
func cutHead(part []byte) (head, content []byte, ok bool) {
	head, content, ok = bytes.Cut(part, []byte("\r\n\r\n"))
	return bytes.TrimPrefix(head, []byte("\r\n")), content, ok
}

// hasName reports whether header lines say `Content-Disposition: form-data; name="..."`.
func hasName(head []byte, name string) bool {
	for len(head) > 0 {
		var line []byte
		line, head, _ = bytes.Cut(head, []byte("\r\n"))
		field, value, _ := bytes.Cut(line, []byte{':'})
		if !equalFold(field, "content-disposition") {
			continue
		}
		if !mediaTypeIs(value, "form-data") {
			return false
		}
		_, params, _ := bytes.Cut(value, []byte{';'})
		got, ok := parameter(params, "name")
		return ok && string(got) == name
	}
	return false
}

// parameter returns one of the parameters of a header value, without quotes. Browsers escape quotes in names as %22; a backslash stands
// for itself.
func parameter(params []byte, name string) (value []byte, ok bool) {
	for len(params) > 0 {
		params = bytes.TrimLeft(params, " \t;")
		equals := bytes.IndexByte(params, '=')
		if equals < 0 {
			return nil, false
		}
		key := bytes.Trim(params[:equals], " \t")
		params = bytes.TrimLeft(params[equals+1:], " \t")
		if len(params) > 0 && params[0] == '"' {
			end := bytes.IndexByte(params[1:], '"')
			if end < 0 {
				return nil, false
			}
			value, params = params[1:end+1], params[end+2:]
		} else {
			end := bytes.IndexByte(params, ';')
			if end < 0 {
				end = len(params)
			}
			value, params = bytes.TrimRight(params[:end], " \t"), params[end:]
		}
		if equalFold(key, name) {
			return value, true
		}
	}
	return nil, false
}
