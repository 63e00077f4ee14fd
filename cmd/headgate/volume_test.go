package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// volumeGrowth is how much memory in bytes the gateway may take for bodies of any length.
const volumeGrowth = 8 << 20

// zeros is a body of n bytes.
type zeros struct{ n int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.n == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), z.n))
	clear(p[:n])
	z.n -= int64(n)
	return n, nil
}

// volume is a gateway in a process of its own between this one and an upstream that takes and gives bodies of any length.
type volume struct {
	*child
	url    string
	client *http.Client
}

func newVolume(t testing.TB) *volume {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		taken, _ := io.Copy(io.Discard, r.Body)
		give, _ := strconv.ParseInt(r.URL.Query().Get("give"), 10, 64)
		if r.URL.Query().Get("announce") != "" {
			w.Header().Set("Content-Length", strconv.FormatInt(give, 10))
		}
		w.Header().Set("X-Taken", strconv.FormatInt(taken, 10))
		_, _ = io.Copy(w, &zeros{give})
	}))
	t.Cleanup(up.Close)
	dir := t.TempDir()
	config := childConfigText(t, dir, fmt.Sprintf(`
[store]
provider = "mem"
[[routes]]
id = "all"
uri = "/*"
[routes.upstream]
nodes = { "%s" = 1 }
`, up.Listener.Addr()))
	file := filepath.Join(dir, "large.toml")
	writeFile(t, file, strings.Replace(config, "[gateway]\n", "[gateway]\nmax_body_size = \"8GiB\"\n", 1))
	c := startChild(t, dir, "run", "-c", file)
	return &volume{c, "http://" + c.addr("gateway"), newClient(t)}
}

// exchange sends n bytes and gets as many, with their length announced or not.
func (v *volume) exchange(up, down int64, announced bool) {
	v.t.Helper()
	q, err := http.NewRequestWithContext(v.t.Context(), http.MethodPost, fmt.Sprintf("%s/?give=%d", v.url, down), io.MultiReader(&zeros{up}))
	if err != nil {
		v.t.Fatal(err)
	}
	q.ContentLength = -1
	if announced {
		q.ContentLength = up
		q.URL.RawQuery += "&announce=1"
	}
	v.client.Timeout = 0
	res, err := v.client.Do(q)
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.Copy(io.Discard, res.Body)
	if err != nil || got != down || res.Header.Get("X-Taken") != strconv.FormatInt(up, 10) {
		v.t.Fatalf("%d: got %d bytes of %d, %v; the upstream %s of %d", res.StatusCode, got, down, err, res.Header.Get("X-Taken"), up)
	}
}

var memoryLine = regexp.MustCompile(`(VmRSS|VmHWM):\s+(\d+) kB`)

// memory returns the resident memory of the process in bytes, now and at its highest since forget.
func (v *volume) memory() (now, highest int64) {
	v.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.cmd.Process.Pid))
	if err != nil {
		v.t.Fatal(err)
	}
	for _, m := range memoryLine.FindAllSubmatch(status, -1) {
		n, _ := strconv.ParseInt(string(m[2]), 10, 64)
		if bytes.Equal(m[1], []byte("VmRSS")) {
			now = n << 10
		} else {
			highest = n << 10
		}
	}
	return now, highest
}

func (v *volume) forget() {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", v.cmd.Process.Pid), []byte("5"), 0); err != nil {
		v.t.Fatal(err)
	}
}

// TestVolume: the memory of the gateway does not grow with the bodies that pass through it.
func TestVolume(t *testing.T) {
	const size = 64 << 20
	v := newVolume(t)
	v.exchange(1<<20, 1<<20, true)
	before, _ := v.memory()
	v.forget()
	for _, announced := range []bool{true, false} {
		v.exchange(size, size, announced)
	}
	if _, highest := v.memory(); highest-before > volumeGrowth {
		t.Errorf("the memory has grown from %d to %d KiB", before>>10, highest>>10)
	}
}

// BenchmarkVolume sends and gets 1 GiB in each iteration and reports by how much the resident memory of the gateway has grown at most.
func BenchmarkVolume(b *testing.B) {
	const size = 1 << 30
	v := newVolume(b)
	v.exchange(1<<20, 1<<20, true)
	before, _ := v.memory()
	v.forget()
	b.SetBytes(2 * size)
	for b.Loop() {
		v.exchange(size, size, true)
	}
	_, highest := v.memory()
	b.ReportMetric(float64(highest-before)/(1<<20), "MiB-grown")
}
