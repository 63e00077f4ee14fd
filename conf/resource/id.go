package resource

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// The verbs with rules of their own; everything else follows the rules of DELETE.
const (
	verbPut   = "PUT"
	verbPost  = "POST"
	verbPatch = "PATCH"
)

// CheckBody is step 2 of a write (contract section 1.4): there is a body, and it is an object. present says whether there was a body
// at all; doc is what it decoded to. The empty array counts as an empty object. For a PATCH with a sub-path, whose body may be
// anything, only present matters: pass an empty object for doc.
func CheckBody(verb string, doc any, present bool) (map[string]any, *Error) {
	if !present {
		if verb == verbPatch {
			return nil, Invalid("missing new configuration")
		}
		return nil, Invalid("missing configurations")
	}
	if obj, ok := asObject(doc); ok {
		return obj, nil
	}
	got := "userdata" // null
	switch doc.(type) {
	case []any:
		got = "table"
	case string:
		got = "string"
	case bool:
		got = "boolean"
	case json.Number:
		got = "number"
	}
	if verb == verbPatch && got != "table" {
		return nil, Invalid("invalid configuration")
	}
	return nil, Invalid("invalid configuration: wrong type: expected object, got " + got)
}

// CheckID is step 3: who names the document. It returns the id under which the document is written or deleted, "" for a POST.
//
// pathID is "" when the path has none; doc is the body, for a PATCH the merged document, for a DELETE nil. When the path names the
// document, doc["id"] becomes that text; an id that is in the body only keeps its form. Whether the id is well formed is for
// Validate to say, except for DELETE: nothing can be stored under an ill-formed id.
func CheckID(k Kind, verb, pathID string, doc map[string]any) (string, *Error) {
	bodyID, inBody := doc["id"]
	switch verb {
	case verbPost:
		if pathID != "" || inBody {
			return "", Invalid("wrong " + k.Word + " id, do not need it")
		}
		return "", nil
	case verbPut:
		if pathID == "" && !inBody {
			return "", Invalid("missing " + k.Word + " id")
		}
	default:
		if pathID == "" {
			return "", Invalid("missing " + k.Word + " id")
		}
	}
	if pathID == "" {
		return idText(bodyID), nil
	}
	if inBody && idText(bodyID) != pathID {
		return "", Invalid("wrong " + k.Word + " id")
	}
	if doc != nil {
		doc["id"] = pathID
	}
	return pathID, nil
}

// idText renders an id of any type for comparison; only strings and integers of at least 1 are ids.
func idText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		if n, ok := toInt(v); ok {
			return strconv.FormatInt(n, 10)
		}
		return string(v)
	}
	return fmt.Sprint(v)
}

// CheckTimes is step 4 for PUT and POST: times are the gateway's to set.
func CheckTimes(doc map[string]any) *Error {
	for _, holder := range []string{"", "upstream", "plugins"} {
		obj, prefix := doc, ""
		if holder != "" {
			obj, _ = doc[holder].(map[string]any)
			prefix = holder + "."
		}
		for _, name := range []string{"create_time", "update_time"} {
			if _, ok := obj[name]; ok {
				return Invalid("the property is forbidden:  " + prefix + name)
			}
		}
	}
	return nil
}

// ValidID says whether id may name a document: 1 to 64 letters, digits, '-', '_' and '.', but not "." or "..", which are no names in
// the path of a URL (RFC 3986 section 5.2.4).
func ValidID(id string) bool {
	if len(id) == 0 || len(id) > 64 || id == "." || id == ".." {
		return false
	}
	return strings.IndexFunc(id, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' && c != '.'
	}) < 0
}
