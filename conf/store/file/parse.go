package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"headgate/conf"
	"headgate/conf/apisix"
	"headgate/conf/resource"
)

// document is a resource of the file as it is stored.
type document struct {
	value []byte
	line  int
}

// parse reads the text of the file at path. It returns every document by store key and what was left aside.
func parse(path string, text []byte, getenv func(string) (string, bool)) (docs map[string]document, notes []string, err error) {
	if filepath.Ext(path) == ".toml" {
		docs, err = parseTOML(path, text)
		return docs, nil, err
	}
	list, notes, err := apisix.ReadResources(path, text, getenv)
	if err != nil {
		return nil, nil, err
	}
	docs = make(map[string]document, len(list))
	for _, d := range list {
		value, err := encode(d.Value)
		if err != nil {
			return nil, nil, fmt.Errorf("%s:%d: %s: %w", path, d.Line, d.Key, err)
		}
		docs[d.Key] = document{value, d.Line}
	}
	return docs, notes, nil
}

func parseTOML(path string, text []byte) (map[string]document, error) {
	// What a writer that truncates first leaves behind for a moment. A comment makes a file that is meant to be empty.
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, conf.Problems{{File: path, Msg: "the file is empty"}}
	}
	tree, err := resource.FromTOML(text)
	if err != nil {
		return nil, fmt.Errorf("%s: not valid TOML: %w", path, err)
	}
	line := conf.Lines(text)
	var problems conf.Problems
	wrong := func(at, msg string) {
		problems = append(problems, conf.Problem{File: path, Line: line(at), Key: at, Msg: msg})
	}
	docs := map[string]document{}
	for _, kind := range slices.Sorted(maps.Keys(tree)) {
		if !slices.Contains(conf.DocumentKinds(), kind) {
			wrong(kind, "unknown kind of resource; known here: "+strings.Join(conf.DocumentKinds(), ", "))
			continue
		}
		list, ok := tables(tree[kind])
		if !ok {
			wrong(kind, "expected an array of tables [["+kind+"]]")
			continue
		}
		conf.CheckDocuments(kind, list, wrong)
		for i, r := range list {
			key, doc, err := conf.NewDocument(kind, r)
			if err != nil {
				continue // CheckDocuments told
			}
			value, err := encode(doc)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", path, key, err)
			}
			docs[key] = document{value, line(fmt.Sprintf("%s[%d]", kind, i))}
		}
	}
	if len(problems) > 0 {
		slices.SortStableFunc(problems, func(a, b conf.Problem) int { return a.Line - b.Line })
		return nil, problems
	}
	return docs, nil
}

func tables(v any) ([]map[string]any, bool) {
	list, ok := v.([]any)
	out := make([]map[string]any, len(list))
	for i, e := range list {
		if out[i], ok = e.(map[string]any); !ok {
			return nil, false
		}
	}
	return out, ok
}

// encode writes a document as JSON text, with numbers as they stand in the file.
func encode(doc map[string]any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(doc); err != nil {
		return nil, err
	}
	return bytes.Clone(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}

// located adds file and line to what a check found wrong with documents.
func located(path string, docs map[string]document, wrong map[string]error) error {
	var problems conf.Problems
	for _, key := range slices.Sorted(maps.Keys(wrong)) {
		problems = append(problems, conf.Problem{File: path, Line: docs[key].line, Key: key, Msg: wrong[key].Error()})
	}
	slices.SortStableFunc(problems, func(a, b conf.Problem) int { return a.Line - b.Line })
	if len(problems) == 0 {
		return errors.New("refused")
	}
	return problems
}
