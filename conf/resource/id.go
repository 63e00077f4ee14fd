package resource

import (
	"encoding/json"
	"fmt"
	"slices"
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
// pathID is what follows the kind in the path, "" when nothing does: "1"; "vault/v1" (or "vault") for secrets; "jack/credentials/c1" (or
// "jack/credentials") for credentials. doc is the body, for a PATCH the merged document, for a DELETE nil. When the path names the
// document, doc["id"] becomes that name (of credentials the last part; not for kinds with NoID); an id that is in the body only keeps
// its form. Whether the id is well formed is for Validate to say, except for DELETE: nothing can be stored under an ill-formed id.
func CheckID(k Kind, verb, pathID string, doc map[string]any) (string, *Error) {
	switch k.Segment {
	case segmentConsumers:
		return checkConsumerID(k, verb, pathID, doc)
	case segmentCredentials:
		return checkCredentialID(k, verb, pathID, doc)
	case segmentSecrets:
		return checkSecretID(k, verb, pathID, doc)
	case segmentPluginMetadata: // the path alone counts
		if verb == verbPut && pathID == "" {
			return "", Invalid("missing plugin name")
		}
		delete(doc, "id")
	}
	return checkPlainID(k, verb, pathID, doc)
}

func checkPlainID(k Kind, verb, pathID string, doc map[string]any) (string, *Error) {
	bodyID, inBody := doc["id"]
	switch verb {
	case verbPost:
		if pathID != "" || inBody {
			return "", Invalid("wrong " + k.Word + " id, do not need it")
		}
		return "", nil
	case verbPut:
		if pathID == "" && !inBody {
			return "", missingID(k)
		}
	default:
		if pathID == "" {
			return "", missingID(k)
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

func missingID(k Kind) *Error { return Invalid("missing " + k.Word + " id") }

// checkConsumerID takes the name from the path or from the body. Whether the two agree is told after the schema was checked, hence by
// Validate.
func checkConsumerID(k Kind, verb, pathID string, doc map[string]any) (string, *Error) {
	if pathID == "" && verb != verbPut {
		return "", missingID(k)
	}
	if pathID == "" {
		pathID, _ = doc["username"].(string)
	}
	return pathID, nil
}

func checkCredentialID(k Kind, verb, pathID string, doc map[string]any) (string, *Error) {
	user, rest, _ := strings.Cut(pathID, "/")
	holder := user + "/" + segmentCredentials + "/"
	short := strings.TrimPrefix(strings.TrimPrefix(rest, segmentCredentials), "/")
	if bodyID, ok := doc["id"].(string); ok { // both forms are possible
		doc["id"] = strings.TrimPrefix(bodyID, holder)
	}
	id, refusal := checkPlainID(k, verb, short, doc)
	if refusal != nil {
		return "", refusal
	}
	return holder + id, nil
}

func checkSecretID(k Kind, verb, pathID string, doc map[string]any) (string, *Error) {
	manager, short, _ := strings.Cut(pathID, "/")
	bodyID, inBody := doc["id"]
	switch {
	case manager == "" && verb == verbPut:
		return "", Invalid("missing secret type")
	case short == "" && verb == verbPatch:
		return "", Invalid("no secret id")
	case short == "" && (verb != verbPut || !inBody):
		return "", missingID(k)
	}
	if inBody {
		text := strings.TrimPrefix(idText(bodyID), manager+"/")
		if short == "" {
			short = text
		}
		if text != short {
			return "", Invalid("wrong " + k.Word + " id")
		}
	}
	id := manager + "/" + short
	if doc != nil {
		doc["id"] = id
	}
	return id, nil
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

// ValidID says whether a document of the kind may be stored under id, which is in the form that CheckID returns.
func (k Kind) ValidID(id string) bool {
	switch k.Segment {
	case segmentConsumers:
		return validUsername(id)
	case segmentCredentials:
		user, short, ok := strings.Cut(id, "/"+segmentCredentials+"/")
		return ok && validUsername(user) && ValidID(short)
	case segmentSecrets:
		manager, short, ok := strings.Cut(id, "/")
		return ok && slices.Contains(secretManagers[:], manager) && ValidID(short)
	}
	return ValidID(id)
}
