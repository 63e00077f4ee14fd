package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// built is the binary under test, made when the first test needs it and removed when the last one has ended.
var built struct {
	once sync.Once
	dir  string
	err  error
}

// binary returns the path of the built program, whose version is "e2e".
func binary(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "headgate-e2e-"); built.err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-X main.version=e2e", "-o", filepath.Join(built.dir, "headgate"), ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "headgate")
}

func removeBinary() {
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
}

// child is the program in a process of its own.
type child struct {
	t              testing.TB
	cmd            *exec.Cmd
	stdout, stderr logLines
	ended          chan struct{} // closed when the process is gone; err then says how
	err            error

	args    []string
	kept    []string   // addresses of servers to which it has a pool of its own
	started *footprint // of the process after its start, nil when nobody has asked where it listens
	// What the test has done to it: ended it by force, told it to stop, asked how it ended.
	killed, stopping, asked bool
}

// childOptions are what a supervisor gives to a process.
type childOptions struct {
	env     []string
	sockets []*os.File // as systemd passes them
	files   int        // the limit of descriptors; 0 = that of this process
}

// startChild starts the program in dir.
func startChild(t testing.TB, dir string, args ...string) *child {
	t.Helper()
	return startChildWith(t, dir, childOptions{}, args...)
}

func startChildWith(t testing.TB, dir string, o childOptions, args ...string) *child {
	t.Helper()
	c := &child{t: t, cmd: exec.Command(binary(t), args...), ended: make(chan struct{}), args: args}
	if len(o.sockets) > 0 { // LISTEN_PID is not known before there is a process
		script := fmt.Sprintf(`LISTEN_PID=$$ LISTEN_FDS=%d exec "$0" "$@"`, len(o.sockets))
		c.cmd = exec.Command("/bin/sh", append([]string{"-c", script, binary(t)}, args...)...)
		c.cmd.ExtraFiles = o.sockets
	}
	if o.files > 0 {
		c.cmd = exec.Command("/bin/sh", append([]string{"-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, o.files), binary(t)}, args...)...)
	}
	c.cmd.Env = append(os.Environ(), o.env...)
	c.cmd.Dir, c.cmd.Stdout, c.cmd.Stderr = dir, &c.stdout, &c.stderr
	// Nothing is left behind, not even when the test's process is killed. A process that took over from it is in its group.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.ended)
	}()
	t.Cleanup(func() {
		c.end()
		if t.Failed() {
			t.Logf("%v said:\n%s%s", args, &c.stdout, &c.stderr)
		}
	})
	return c
}

// runChild runs the program to its end and returns what it printed and its exit status.
func runChild(t testing.TB, dir string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	c := startChild(t, dir, args...)
	status = c.wait()
	return c.stdout.String(), c.stderr.String(), status
}

// wait returns the exit status, when the process and those that took over from it have ended.
func (c *child) wait() int {
	c.t.Helper()
	c.asked = true
	select {
	case <-c.ended:
	case <-time.After(patience):
		c.t.Fatalf("%v does not end", c.cmd.Args)
	}
	var exit *exec.ExitError
	if errors.As(c.err, &exit) {
		return exit.ExitCode()
	}
	if c.err != nil {
		c.t.Fatal(c.err)
	}
	return 0
}

func (c *child) signal(s syscall.Signal) {
	c.t.Helper()
	c.stopping = c.stopping || s == syscall.SIGTERM || s == syscall.SIGINT
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

// kill ends the process without giving it a chance to do anything.
func (c *child) kill() {
	c.killed = true
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) // it may have ended already
	<-c.ended
}

// addr waits until the process has said where its listener called name is.
func (c *child) addr(name string) string {
	c.t.Helper()
	at := c.listener(name)
	c.begin()
	return at
}

func (c *child) listener(name string) string {
	c.t.Helper()
	line := regexp.MustCompile(name + ` listens on (\S+)`)
	var m []string
	eventually(c.t, name+" to listen", func() bool {
		select {
		case <-c.ended:
			c.t.Fatalf("the process has ended: %v", c.err)
		default:
		}
		m = line.FindStringSubmatch(c.stderr.String())
		return m != nil
	})
	return m[1]
}

// says waits for text in what the process logs.
func (c *child) says(text string) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("%q in the log", text), func() bool {
		if strings.Contains(c.stderr.String(), text) {
			return true
		}
		select {
		case <-c.ended:
			if !strings.Contains(c.stderr.String(), text) {
				c.t.Fatalf("the process has ended (%v) without saying %q", c.err, text)
			}
		default:
		}
		return false
	})
}

// writeFile writes a file of the test.
func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCommands(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "good.toml"), "[admin]\nallow = [\"0.0.0.0/0\"]\n[[routes]]\nid = \"r\"\nuri = \"/r\"\n[routes.upstream]\nnodes = { \"127.0.0.1:80\" = 1 }\n")
	writeFile(t, filepath.Join(dir, "bad.toml"), "[gateway]\nlisten = [\"nowhere\"]\nmax_headers = 0\nidle_timout = \"3s\"\n\n[[admin.keys]]\nname = \"short\"\nkey = \"secret\"\n[store]\nprovider = 7\n")
	writeFile(t, filepath.Join(dir, "text.toml"), "[gateway]\nlisten = \n")
	const badProblems = `bad.toml:2: gateway.listen[0]: expected host:port with an IP address, localhost or no host, such as "127.0.0.1:9180" or "[::]:9080", got "nowhere"
bad.toml:3: gateway.max_headers: expected 1 to 10000, got 0
bad.toml:4: gateway.idle_timout: unknown key, did you mean gateway.idle_timeout?
bad.toml:8: admin.keys[0].key: expected at least 32 characters, got 6
bad.toml:10: store.provider: expected a string, got a whole number
`
	for _, tt := range []struct {
		args           string
		status         int
		stdout, stderr string // what they begin with
	}{
		{"version", 0, "headgate e2e (go", ""},
		{"--version", 0, "headgate e2e (go", ""},
		{"help", 0, "headgate splits", ""},
		{"", 2, "", "headgate splits"},
		{"fly", 2, "", `headgate: unknown command "fly"`},
		{"run -x", 2, "", "flag provided but not defined: -x"},
		{"run conf.toml", 2, "", ""},
		{"check", 2, "", "headgate splits"},
		{"check -c good.toml", 0, "warning: DANGER: admin.allow contains 0.0.0.0/0", ""},
		{"check -c bad.toml", 1, "", badProblems},
		{"run -c bad.toml", 1, "", badProblems},
		{"check -c text.toml", 1, "", "text.toml:2: not valid TOML"},
		{"check -c none.toml", 1, "", "open none.toml: no such file or directory"},
		{"run -c none.toml", 1, "", "open none.toml: no such file or directory"},
	} {
		stdout, stderr, status := runChild(t, dir, strings.Fields(tt.args)...)
		if status != tt.status || !strings.HasPrefix(stdout, tt.stdout) || !strings.HasPrefix(stderr, tt.stderr) {
			t.Errorf("headgate %s: status %d, want %d\n-- stdout --\n%s-- want --\n%s\n-- stderr --\n%s-- want --\n%s",
				tt.args, status, tt.status, stdout, tt.stdout, stderr, tt.stderr)
		}
		if tt.stdout == "" && stdout != "" || tt.args == "check -c bad.toml" && stderr != tt.stderr {
			t.Errorf("headgate %s said too much:\n%s%s", tt.args, stdout, stderr)
		}
		if strings.Contains(stdout+stderr, `"secret"`) {
			t.Errorf("headgate %s shows a key", tt.args)
		}
	}
	// None of them left anything behind.
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 {
		t.Errorf("the directory has %v, %v", entries, err)
	}
}

// What is wrong with the resources of a file is told in full, too, each with the line at which the resource begins or a later one of it.
func TestCheckResources(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "bad.toml"), `[[routes]]
id = "a"
uri = "/a"
upstream_id = "nowhere"

[[routes]]
id = "b"
uri = "/b"
[routes.plugins.no-such-plugin]

[[upstreams]]
id = "c"
nodes = { "127.0.0.1:80" = -1 }
`)
	for _, command := range []string{"check", "run"} {
		_, stderr, status := runChild(t, dir, command, "-c", "bad.toml")
		if status != 1 {
			t.Errorf("%s: status %d", command, status)
		}
		for _, want := range []string{
			`(?m)^bad\.toml:[1-4]: .*failed to fetch upstream info by upstream id \[nowhere\], response code: 404$`,
			`(?m)^bad\.toml:[6-9]: .*unknown plugin \[no-such-plugin\]$`,
			`(?m)^bad\.toml:1[123]: .*nodes.*$`,
		} {
			if !regexp.MustCompile(want).MatchString(stderr) {
				t.Errorf("%s: no line is like %s:\n%s", command, want, stderr)
			}
		}
	}
}

// Settings and resources are told together, of each resource everything that its schemas and references show, with the line of the key.
func TestCheckTellsEverything(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "bad.toml"), `[gateway]
listen = ["nowhere"]
[access_log]
format = "$nope"

[[routes]]
id = "a"
urii = "/a"
upstream_id = "nowhere"
priority = "high"
[routes.plugins.key-aut]
[routes.plugins.proxy-rewrite]
uri = 5
headers = { set = { "X-A" = true } }

[[routes]]
id = "b"
uri = "/b"
vars = [["arg_a"]]
[routes.plugins.limit-count]
[routes.upstream]
type = "x"
nodes = { "127.0.0.1:80" = -1, "127.0.0.1:81" = "x" }
[routes.upstream.timeout]
connect = 0
send = 1

[[upstreams]]
id = "c"
type = "y"
nodes = { "127.0.0.1:80" = 1 }

[[consumers]]
username = "jack"
group_id = "none"
[consumers.plugins.key-auth]
kei = "x"
`)
	want := []string{
		`bad.toml:2: gateway.listen[0]: expected host:port with an IP address, localhost or no host, such as "127.0.0.1:9180" or "[::]:9080", got "nowhere"`,
		`bad.toml:4: access_log.format: unknown variable "$nope"`,
		`bad.toml:8: routes[0].urii: unknown key, did you mean routes[0].uri?`,
		`bad.toml:9: routes[0].upstream_id: failed to fetch upstream info by upstream id [nowhere], response code: 404`,
		`bad.toml:10: routes[0].priority: wrong type: expected integer, got string`,
		`bad.toml:11: routes[0].plugins.key-aut: unknown plugin [key-aut], did you mean routes[0].plugins.key-auth?`,
		`bad.toml:13: routes[0].plugins.proxy-rewrite.uri: wrong type: expected string, got number`,
		`bad.toml:19: routes[1].vars: failed to validate the 'vars' expression: `,
		`bad.toml:20: routes[1].plugins.limit-count: `,
		`bad.toml:23: routes[1].upstream.nodes."127.0.0.1:80": expected -1 to be at least 0`,
		`bad.toml:23: routes[1].upstream.nodes."127.0.0.1:81": wrong type: expected integer, got string`,
		`bad.toml:24: routes[1].upstream.timeout: property "read" is required`,
		`bad.toml:25: routes[1].upstream.timeout.connect: expected 0 to be greater than 0`,
		`bad.toml:28: upstreams[0]: unknown balancer type "y"`,
		`bad.toml:35: consumers[0].group_id: failed to fetch consumer group info by consumer group id [none], response code: 404`,
		`bad.toml:36: consumers[0].plugins.key-auth: property "key" is required`,
	}
	for _, command := range []string{"check", "run"} {
		_, stderr, status := runChild(t, dir, command, "-c", "bad.toml")
		if status != 1 {
			t.Errorf("%s: status %d", command, status)
		}
		rest := stderr
		for _, line := range want { // in this order
			_, after, found := strings.Cut("\n"+rest, "\n"+line)
			if !found {
				t.Errorf("%s: %s is not there, or out of order:\n%s", command, line, stderr)
				continue
			}
			rest = after
		}
	}
	// None of it has left anything behind.
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the directory has %v, %v", entries, err)
	}
}

// What a reload takes, a start takes: a resource of the file may refer to what is stored.
func TestStartWithReferencesIntoTheStore(t *testing.T) {
	dir := t.TempDir()
	store := fmt.Sprintf("[store]\npath = %q\n", filepath.Join(dir, "headgate.db"))
	c := startChild(t, dir, "run", "-c", childConfig(t, dir, store))
	client := newClient(t)
	put := send(t, client, "PUT", "http://"+c.addr("admin")+"/apisix/admin/upstreams/stored", `{"nodes":{"127.0.0.1:1":1}}`, "X-API-KEY: "+adminKey)
	if put.status != 201 {
		t.Fatal(put)
	}
	file := childConfig(t, dir, store+"[[routes]]\nid = \"r\"\nuri = \"/r\"\nupstream_id = \"stored\"\n")
	c.signal(syscall.SIGHUP)
	c.says("is in force")
	c.signal(syscall.SIGTERM)
	c.wait()
	again := startChild(t, dir, "run", "-c", file)
	if got := send(t, client, "GET", "http://"+again.addr("control")+"/v1/route/r", ""); got.status != 200 {
		t.Error(got)
	}
}

// What only compiling shows is told with its line as well.
func TestCheckCompiles(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "bad.toml"), `[[routes]]
id = "a"
uri = "/a"
[routes.upstream]
type = "x"
nodes = { "127.0.0.1:80" = 1 }

[[upstreams]]
id = "c"
type = "y"
nodes = { "127.0.0.1:80" = 1 }
`)
	_, stderr, status := runChild(t, dir, "check", "-c", "bad.toml")
	if want := `^bad\.toml:1: routes\[0\]: upstream: .*balancer.*\nbad\.toml:8: upstreams\[0\]: [^/]*balancer.*\n$`; status != 1 || !regexp.MustCompile(want).MatchString(stderr) {
		t.Errorf("status %d, not like %s:\n%s", status, want, stderr)
	}
}

func TestCheckSettings(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "empty.pem"), "no certificate\n")
	const unclosed, unknown = "expected a } for every ${", "unknown variable "
	for _, tt := range []struct{ file, want string }{
		{"[access_log]\nformat = '${status'", "c.toml:2: access_log.format: " + unclosed},
		{"[access_log]\npath = 'off'\nformat = '$status $statsu ${nope ?? -} $1'",
			"c.toml:3: access_log.format: " + unknown + `"$statsu"` + "\nc.toml:3: access_log.format: " + unknown + `"$nope"` +
				"\nc.toml:3: access_log.format: " + unknown + `"$1"`},
		{"[access_log]\nformat = '${}'", "c.toml:2: access_log.format: " + unknown + `"$"`},
		{"[access_log]\nformat = '\\$x \\${x $ $$status, $status. $uri.html ${ status ?? - } ${remote_addr??$x} $http_x $arg_a-$cookie_b 5$'", ""},
		{"[upstream]\nca_file = 'nowhere.pem'", "c.toml:2: upstream.ca_file: open nowhere.pem: no such file or directory"},
		{"[upstream]\nca_file = 'empty.pem'\n[access_log]\nformat = '$x'",
			"c.toml:2: upstream.ca_file: empty.pem has no PEM certificate\nc.toml:4: access_log.format: " + unknown + `"$x"`},
	} {
		writeFile(t, filepath.Join(dir, "c.toml"), tt.file+"\n")
		stdout, stderr, status := runChild(t, dir, "check", "-c", "c.toml")
		if tt.want == "" {
			if status != 0 || !strings.Contains(stdout, "c.toml: ok") {
				t.Errorf("%s\nstatus %d: %s", tt.file, status, stderr)
			}
		} else if status != 1 || stderr != tt.want+"\n" {
			t.Errorf("%s\nstatus %d: %s\nwant %s", tt.file, status, stderr, tt.want)
		}
	}
}

// An access log that cannot be opened is said once to be one.
func TestAccessLogThatFails(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "h.toml")
	writeFile(t, file, "[gateway]\nlisten = ['127.0.0.1:0']\n[store]\nprovider = 'mem'\n[access_log]\npath = 'no/such/dir'\n[[admin.keys]]\nname = 'a'\nkey = '"+adminKey+"'\n")
	if _, stderr, status := runChild(t, dir, "run", "-c", file); status != 1 || strings.Count(stderr, "access log: ") != 1 {
		t.Errorf("status %d: %s", status, stderr)
	}
}

// A listener that cannot be opened ends the start, with everything that had been started before it.
func TestAddressInUse(t *testing.T) {
	dir := t.TempDir()
	g := startChild(t, dir, "run", "-c", childConfig(t, dir, ""))
	taken := g.addr("gateway")
	other := t.TempDir()
	file := childConfig(t, other, "")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, string(bytes.Replace(text, []byte(`listen = ["127.0.0.1:0"]`), []byte(`listen = ["`+taken+`"]`), 1)))
	if _, stderr, status := runChild(t, other, "run", "-c", file); status != 1 || !strings.Contains(stderr, "gateway.listen") || !strings.Contains(stderr, "in use") {
		t.Errorf("status %d: %s", status, stderr)
	}
	// Nor does a second process take the store of the first.
	if _, stderr, status := runChild(t, dir, "run", "-c", filepath.Join(dir, "headgate.toml")); status != 1 || !strings.Contains(stderr, "headgate.db") {
		t.Errorf("status %d: %s", status, stderr)
	}
}

// childConfig writes a configuration file for a process in dir: free ports, everything under dir. more is added at its end.
func childConfig(t testing.TB, dir, more string) string {
	t.Helper()
	file := filepath.Join(dir, "headgate.toml")
	writeFile(t, file, fmt.Sprintf(`[gateway]
listen = ["127.0.0.1:0"]
drain_timeout = "5s"
[admin]
listen = "127.0.0.1:0"
[metrics]
listen = "127.0.0.1:0"
[control]
listen = "127.0.0.1:0"
[access_log]
path = %q
[[admin.keys]]
name = "deploy"
key = %q
%s`, filepath.Join(dir, "access.log"), adminKey, more))
	return file
}
