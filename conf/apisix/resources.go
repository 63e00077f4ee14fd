// Package apisix reads what an APISIX installation is made of: the resources of apisix.yaml (contract sections 1.8 and 6) and the
// settings of config.yaml, which Import turns into a headgate.toml. It is pure: no IO, no state.
package apisix

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"headgate/conf"
)

// Document is a resource in the form in which a store keeps it.
type Document struct {
	Key   string // "routes/1", "consumers/jack/credentials/c1"
	Line  int    // where it begins in the file
	Value map[string]any
}

// endMarker is the last line of a complete apisix.yaml.
const endMarker = "#END"

// ReadResources reads the text of an apisix.yaml, the file called name. getenv replaces ${{NAME}} as in DecodeYAML; nil leaves such text
// alone. A text whose last line is not #END is unfinished, and refused: somebody is still writing it. Items without an id are called
// arr_1, arr_2, ... after their place, as APISIX calls them.
//
// notes says what the file contains and Headgate has no use for. The error is a conf.Problems with everything that is wrong; no
// document is returned with it.
func ReadResources(name string, text []byte, getenv func(string) (string, bool)) (docs []Document, notes []string, err error) {
	if !finished(text) {
		return nil, nil, conf.Problems{{File: name, Msg: "the file is unfinished: expected " + endMarker + " as its last line"}}
	}
	tree, err := DecodeYAML(name, text, getenv)
	if err != nil {
		return nil, nil, err
	}
	r := reader{name: name, tree: tree, lines: map[string]int{}}
	for _, member := range slices.Sorted(maps.Keys(tree.Root)) {
		r.member(member, tree.Root[member])
	}
	if len(r.problems) > 0 {
		slices.SortStableFunc(r.problems, func(a, b conf.Problem) int { return a.Line - b.Line })
		return nil, nil, r.problems
	}
	return r.docs, r.notes, nil
}

func finished(text []byte) bool {
	text = bytes.TrimRight(text, " \t\r\n")
	return bytes.Equal(bytes.TrimSpace(text[bytes.LastIndexByte(text, '\n')+1:]), []byte(endMarker))
}

type reader struct {
	name     string
	tree     *Tree
	lines    map[string]int // by store key
	docs     []Document
	notes    []string
	problems conf.Problems
}

func (r *reader) wrong(at, field, msg string) {
	key := at
	if field != "" {
		key += "." + field
	}
	r.problems = append(r.problems, conf.Problem{File: r.name, Line: r.tree.Line(at), Key: key, Msg: msg})
}

func (r *reader) member(name string, v any) {
	switch {
	case slices.Contains(conf.DocumentKinds(), name):
	case name == "plugins", name == "stream_plugins":
		r.notes = append(r.notes, name+": ignored, every plugin of Headgate is always there")
		return
	case name == "stream_routes":
		r.notes = append(r.notes, name+": ignored, Headgate has no stream proxy")
		return
	case strings.HasSuffix(name, "_conf_version"):
		return
	default:
		r.notes = append(r.notes, fmt.Sprintf("%s: ignored, it is no kind of resource", shorten(name)))
		return
	}
	if v == nil {
		return
	}
	list, ok := v.([]any)
	if !ok {
		r.wrong(name, "", "expected a list")
		return
	}
	for i, e := range list {
		at := name + "[" + strconv.Itoa(i) + "]"
		item, ok := e.(map[string]any)
		if !ok {
			r.wrong(at, "", "expected a mapping")
			continue
		}
		r.item(name, at, i, item)
	}
}

// item adds one resource. Its map is not shared, so it may be changed.
func (r *reader) item(kind, at string, i int, item map[string]any) {
	// The API of standalone mode writes these two into what it saves.
	delete(item, "modifiedIndex")
	delete(item, "createdIndex")
	id, _ := item["id"].(string)
	if user, credential, ok := strings.Cut(id, "/credentials/"); ok && kind == "consumers" {
		kind = "credentials"
		item["consumer"], item["id"] = user, credential
	}
	switch _, has := item["id"]; {
	case has, kind == "consumers", kind == "credentials", kind == "secrets", kind == "plugin_metadata":
	default:
		item["id"] = "arr_" + strconv.Itoa(i+1)
	}
	key, doc, err := conf.NewDocument(kind, item)
	if wrong := (*conf.IdentityError)(nil); errors.As(err, &wrong) {
		r.wrong(at, wrong.Field, wrong.Msg)
		return
	}
	if first, dup := r.lines[key]; dup {
		r.wrong(at, "", fmt.Sprintf("%s is there already, at line %d", key, first))
		return
	}
	r.lines[key] = r.tree.Line(at)
	r.docs = append(r.docs, Document{Key: key, Line: r.tree.Line(at), Value: doc})
}

// Encode returns the document as JSON text, numbers as they were written.
func (d Document) Encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(d.Value); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
