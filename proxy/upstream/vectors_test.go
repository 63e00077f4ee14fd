package upstream

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// vector is one response of http1-vectors.jsonl: its bytes, and what a proxy must make of them.
type vector struct {
	Name, Side, Expect string
	Raw                []byte `json:"-"`
	Base64             string `json:"raw_base64"`
	Method             string `json:"request_method"`
	Status             int
	Reuse              bool `json:"reuse_upstream_conn"`
}

func readVectors(t *testing.T) []vector {
	dir := os.Getenv("HEADGATE_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared")
	}
	file, err := os.Open(filepath.Join(dir, "testdata", "http1-vectors.jsonl"))
	if os.IsNotExist(err) {
		t.Log("http1-vectors.jsonl is not here (HEADGATE_SHARED names its folder): only this package's own tables have run")
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var out []vector
	for lines := json.NewDecoder(file); ; {
		var v vector
		if err := lines.Decode(&v); err == io.EOF {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		if v.Side != "response" {
			continue
		}
		if v.Raw, err = base64.StdEncoding.DecodeString(v.Base64); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
}

// reference reads the final answer of an accepted vector with another parser. untilClose: only the end of the stream ends it.
func (v vector) reference(t *testing.T) (body string, untilClose bool) {
	br := bufio.NewReader(bytes.NewReader(v.Raw))
	for {
		res, err := http.ReadResponse(br, &http.Request{Method: v.Method})
		if err != nil {
			t.Fatalf("the reference cannot read it: %v", err)
		}
		if res.StatusCode < 200 {
			continue
		}
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatalf("the reference cannot read its body: %v", err)
		}
		return string(b), res.ContentLength < 0 && res.TransferEncoding == nil
	}
}

func TestVectors(t *testing.T) {
	t.Parallel()
	for _, v := range readVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			r := newRig(t)
			closes := serve(t, once(string(v.Raw)))
			got := do(r.upstream(retries(0), closes), request(v.Method, "/", ""))
			switch v.Expect {
			case "reject", "truncated":
				if got.code() == "" {
					t.Fatalf("taken for whole: status %d, body %q", got.status, got.body)
				}
			case "accept":
				body, untilClose := v.reference(t)
				got.want(t, v.Status, body)
				if v.Reuse || untilClose {
					return
				}
				// On a connection that stays open, the same bytes must keep it out of the pool.
				stays := serve(t, func(p *peer) {
					if _, ok := p.next(); ok {
						p.send(string(v.Raw))
						p.gone()
					}
				})
				do(r.upstream(retries(0), stays), request(v.Method, "/", "")).want(t, v.Status, body)
				r.connections(0, 0)
			}
		})
	}
}
