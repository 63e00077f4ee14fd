package requestvalidation

import (
	"bytes"
	"strconv"
	"strings"
)

// explain says in the contract's words why body is no JSON: what was expected and what is there instead, at which character, counted from
// 1. Where the contract's parser would see nothing wrong, err has the word.
func explain(body []byte, err error) string {
	s := scanner{text: body}
	if s.value(s.next(), 0) {
		if t := s.next(); t.kind != tokenEnd {
			s.complain("the end", t)
		}
	}
	if s.complaint == "" {
		return err.Error()
	}
	return s.complaint
}

// scanner walks over the tokens of a text and keeps the first complaint.
type scanner struct {
	text      []byte
	at        int
	complaint string
}

// token is named as complaints name it; a mistake has a description for a name.
type token struct {
	kind  string
	index int
}

const (
	tokenEnd     = "T_END"
	tokenString  = "T_STRING"
	tokenNumber  = "T_NUMBER"
	tokenBoolean = "T_BOOLEAN"
	tokenNull    = "T_NULL"
	tokenObject  = "T_OBJ_BEGIN"
	tokenArray   = "T_ARR_BEGIN"
	endOfObject  = "T_OBJ_END"
	endOfArray   = "T_ARR_END"
	tokenColon   = "T_COLON"
	tokenComma   = "T_COMMA"
)

func (s *scanner) complain(expected string, t token) bool {
	s.complaint = "Expected " + expected + " but found " + t.kind + " at character " + strconv.Itoa(t.index+1)
	return false
}

// maxDepth ends the walk where other limits have been passed already.
const maxDepth = 1000

// value reads a value that begins with t and says whether it is one.
func (s *scanner) value(t token, depth int) bool {
	switch t.kind {
	case tokenString, tokenNumber, tokenBoolean, tokenNull:
		return true
	case tokenObject:
		return depth < maxDepth && s.object(depth+1)
	case tokenArray:
		return depth < maxDepth && s.array(depth+1)
	}
	return s.complain("value", t)
}

func (s *scanner) object(depth int) bool {
	t := s.next()
	if t.kind == endOfObject {
		return true
	}
	for {
		if t.kind != tokenString {
			return s.complain("object key string", t)
		}
		if t = s.next(); t.kind != tokenColon {
			return s.complain("colon", t)
		}
		if !s.value(s.next(), depth) {
			return false
		}
		switch t = s.next(); t.kind {
		case endOfObject:
			return true
		case tokenComma:
			t = s.next()
		default:
			return s.complain("comma or object end", t)
		}
	}
}

func (s *scanner) array(depth int) bool {
	t := s.next()
	if t.kind == endOfArray {
		return true
	}
	for {
		if !s.value(t, depth) {
			return false
		}
		switch t = s.next(); t.kind {
		case endOfArray:
			return true
		case tokenComma:
			t = s.next()
		default:
			return s.complain("comma or array end", t)
		}
	}
}

func (s *scanner) next() token {
	for s.at < len(s.text) && strings.IndexByte(" \t\r\n", s.text[s.at]) >= 0 {
		s.at++
	}
	t := token{index: s.at}
	if s.at == len(s.text) || s.text[s.at] == 0 {
		t.kind = tokenEnd
		return t
	}
	c := s.text[s.at]
	switch c {
	case '{':
		t.kind = tokenObject
	case '}':
		t.kind = endOfObject
	case '[':
		t.kind = tokenArray
	case ']':
		t.kind = endOfArray
	case ':':
		t.kind = tokenColon
	case ',':
		t.kind = tokenComma
	case '"':
		return s.string(t)
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return s.number(t)
	default:
		for _, word := range [...]struct{ text, kind string }{{"true", tokenBoolean}, {"false", tokenBoolean}, {"null", tokenNull}} {
			if bytes.HasPrefix(s.text[s.at:], []byte(word.text)) {
				s.at += len(word.text)
				t.kind = word.kind
				return t
			}
		}
		t.kind = "invalid token"
		return t
	}
	s.at++
	return t
}

// string reads a string from its opening quotation mark.
func (s *scanner) string(t token) token {
	for s.at++; s.at < len(s.text) && s.text[s.at] != 0; s.at++ {
		switch s.text[s.at] {
		case '"':
			s.at++
			t.kind = tokenString
			return t
		case '\\':
			if kind := escape(s.text[s.at+1:]); kind != "" {
				return token{kind, s.at}
			}
			s.at++
		}
	}
	return token{"unexpected end of string", s.at}
}

// escape says what is wrong with what follows a backslash, "" for nothing.
func escape(b []byte) string {
	switch {
	case len(b) == 0 || strings.IndexByte(`"\/bfnrtu`, b[0]) < 0:
		return "invalid escape code"
	case b[0] == 'u':
		for i := 1; i <= 4; i++ {
			if i >= len(b) || strings.IndexByte("0123456789abcdefABCDEF", b[i]) < 0 {
				return "invalid unicode escape code"
			}
		}
	}
	return ""
}

// number reads as much as is a number.
func (s *scanner) number(t token) token {
	end := s.at
	if s.text[end] == '-' {
		end++
	}
	whole := s.digits(end)
	fraction := whole
	if whole < len(s.text) && s.text[whole] == '.' {
		fraction = s.digits(whole + 1)
	}
	if whole == end && fraction <= whole+1 {
		t.kind = "invalid number"
		return t
	}
	s.at, t.kind = fraction, tokenNumber
	if fraction < len(s.text) && s.text[fraction]|0x20 == 'e' {
		power := fraction + 1
		if power < len(s.text) && (s.text[power] == '-' || s.text[power] == '+') {
			power++
		}
		if after := s.digits(power); after > power {
			s.at = after
		}
	}
	return t
}

// digits returns where the digits that begin at i end.
func (s *scanner) digits(i int) int {
	for i < len(s.text) && '0' <= s.text[i] && s.text[i] <= '9' {
		i++
	}
	return i
}
