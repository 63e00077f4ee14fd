package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
)

// MaxDepth is the deepest nesting of arrays and objects that a document may have. Real resources stay below 20; the limit keeps
// every recursive walk over a document short.
const MaxDepth = 64

// DecodeJSON parses exactly one JSON document into map[string]any, []any, json.Number, string, bool and nil. Numbers keep their
// text. Of duplicate keys the last one wins. Refused with a text for the operator: malformed JSON, data after the document, nesting
// beyond MaxDepth, numbers that no double can hold. raw is not kept. Bytes that are not UTF-8 become U+FFFD.
func DecodeJSON(raw []byte) (any, error) {
	if doc, ok := parse(raw); ok {
		return doc, nil
	}
	return decodeSlowly(raw)
}

// decodeSlowly is DecodeJSON as the library does it.
func decodeSlowly(raw []byte) (any, error) {
	if err := checkDepth(raw); err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var doc any
	if err := dec.Decode(&doc); err != nil {
		return nil, describe(err)
	}
	end := dec.InputOffset()
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("unexpected data after the document at byte %d", end+1)
	}
	if err := checkNumbers(doc); err != nil {
		return nil, err
	}
	return doc, nil
}

func describe(err error) error {
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("%w at byte %d", err, syntax.Offset)
	case errors.Is(err, io.EOF):
		return errors.New("the document is empty")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("unexpected end of the document")
	}
	return err
}

// checkDepth counts brackets outside strings. It needs no valid JSON: whatever it misjudges the parser refuses.
func checkDepth(raw []byte) error {
	depth, inString := 0, false
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if inString {
			switch c {
			case '\\':
				i++
			case '"':
				inString = false
			}
			continue
		}
		switch c {
		case '"':
			inString = true
		case '{', '[':
			if depth++; depth > MaxDepth {
				return fmt.Errorf("nested deeper than %d levels at byte %d", MaxDepth, i+1)
			}
		case '}', ']':
			depth--
		}
	}
	return nil
}

func checkNumbers(v any) error {
	switch v := v.(type) {
	case map[string]any:
		for _, item := range v {
			if err := checkNumbers(item); err != nil {
				return err
			}
		}
	case []any:
		for _, item := range v {
			if err := checkNumbers(item); err != nil {
				return err
			}
		}
	case json.Number:
		if f, _ := strconv.ParseFloat(string(v), 64); math.IsInf(f, 0) {
			text := string(v)
			if len(text) > 32 {
				text = text[:32] + "..."
			}
			return errors.New("number out of range: " + text)
		}
	}
	return nil
}
