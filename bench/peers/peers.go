// Package peers knows the proxies that the rig compares: the files that
// configure them, the command lines that run them in the foreground, and the
// Debian packages they come from. It starts nothing but package installs.
package peers

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

//go:embed nginx.conf haproxy.cfg headgate.toml headgate-bare.toml headgate-chain.toml headgate-storm.toml headgate-scale.toml
var files embed.FS

// Params fill a peer's configuration. All addresses are host:port.
type Params struct {
	Dir      string // for every file that the peer reads or writes
	Listen   string // where the load goes
	Upstream string // the simulator
	Workers  int    // nginx workers, HAProxy threads
	Log      bool   // write an access log

	// Headgate's other listeners, and the key of its Admin API.
	Admin, Metrics, Control, Key string
	// Of the run at scale alone: the listener of probes, the store's provider, and where an etcd is.
	Status, Store, Etcd string
}

// Peer is one kind of proxy.
type Peer struct {
	Name    string
	Package string // Debian's, "" for what this module builds
	Splits  bool   // sends every other request to /v1/... and /v2/...
	Go      bool   // heeds GOMAXPROCS

	binary  string
	config  string // template, also the name of the file written
	args    []string
	version []string
}

// configFile stands for the path of the written configuration in Peer.args.
const configFile = "\x00config"

// All returns the proxies of the comparison in their order of presentation.
// headgate is the path of Headgate's binary. The relay is not among them: it
// is a part of the rig.
func All(headgate string) []Peer {
	return []Peer{
		{
			Name: "nginx", Package: "nginx", binary: "nginx", config: "nginx.conf",
			args: []string{"-e", "stderr", "-c", configFile}, version: []string{"-v"},
		},
		{
			Name: "haproxy", Package: "haproxy", binary: "haproxy", config: "haproxy.cfg",
			args: []string{"-db", "-q", "-f", configFile}, version: []string{"-v"},
		},
		headgatePeer("headgate", headgate, true),
		headgatePeer("headgate-bare", headgate, false),
		headgatePeer("headgate-chain", headgate, true),
	}
}

// Storm returns Headgate as the storm needs it: empty, on the embedded store.
func Storm(headgate string) Peer { return headgatePeer("headgate-storm", headgate, false) }

// Scale returns Headgate as the run at scale needs it: empty, on any store.
func Scale(headgate string) Peer { return headgatePeer("headgate-scale", headgate, false) }

func headgatePeer(name, binary string, splits bool) Peer {
	return Peer{
		Name: name, Splits: splits, Go: true, binary: binary, config: name + ".toml",
		args: []string{"run", "-c", configFile}, version: []string{"version"},
	}
}

// sbin: Debian's daemons are not on the PATH of a plain user.
var sbin = [...]string{"/usr/sbin", "/usr/local/sbin", "/sbin"}

// Binary finds the peer's program; the error says what is missing and how to get it.
func (p Peer) Binary() (string, error) {
	if path, err := exec.LookPath(p.binary); err == nil {
		return filepath.Abs(path)
	}
	if p.Package == "" {
		return "", fmt.Errorf("%s: no program at %s (make build makes it, -headgate names another place)", p.Name, p.binary)
	}
	for _, dir := range sbin {
		if path, err := exec.LookPath(filepath.Join(dir, p.binary)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: not installed (apt-get install %s)", p.Name, p.Package)
}

// Prepare writes the peer's configuration into params.Dir and returns the
// command line that runs it in the foreground.
func (p Peer) Prepare(params Params) ([]string, error) {
	binary, err := p.Binary()
	if err != nil {
		return nil, err
	}
	text, err := p.render(params)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(params.Dir, p.config)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return nil, err
	}
	argv := []string{binary}
	for _, a := range p.args {
		argv = append(argv, strings.ReplaceAll(a, configFile, path))
	}
	return argv, nil
}

func (p Peer) render(params Params) ([]byte, error) {
	t, err := template.ParseFS(files, p.config)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, params); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Version returns the first line of what the program says of itself, or "".
func (p Peer) Version(ctx context.Context) string {
	binary, err := p.Binary()
	if err != nil {
		return ""
	}
	out, err := exec.CommandContext(ctx, binary, p.version...).CombinedOutput()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

// Install gets Debian packages with apt-get, which needs root.
func Install(ctx context.Context, packages []string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("not root: run `apt-get install %s` first", strings.Join(packages, " "))
	}
	install := append([]string{"install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"}, packages...)
	for _, args := range [][]string{{"update", "-q"}, install} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		// RUNLEVEL=1 keeps a System V style init from starting the packages' own services.
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}
