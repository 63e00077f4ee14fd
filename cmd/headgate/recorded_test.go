package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"headgate/plugins"
)

// The files of the recordings, below their folder.
const (
	recordings       = "testdata/apisix-goldens.jsonl"
	recordingsRunner = "tools/goldenrun/goldenrun.py"
)

// sharedDir returns the folder of the recordings, or which files are missing there.
func sharedDir(t *testing.T) (dir string, missing []string) {
	t.Helper()
	if dir = os.Getenv("HEADGATE_SHARED"); dir == "" {
		wd, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(wd, "..", "..", "..", "shared")
	}
	for _, file := range [...]string{recordings, recordingsRunner} {
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			missing = append(missing, filepath.Join(dir, file))
		}
	}
	return dir, missing
}

// freePortRange returns the first of n ports on loopback that are free, below those that the system gives out.
func freePortRange(t *testing.T, n int) int {
	t.Helper()
	for base := 21000 + os.Getpid()%4000; base < 31000; base += n {
		free := true
		for port := base; port < base+n && free; port++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if free = err == nil; free {
				_ = l.Close()
			}
		}
		if free {
			return base
		}
	}
	t.Fatal("no free ports")
	return 0
}

// differences are the recorded cases in which this gateway is meant to differ, with the reasons.
func differences(t *testing.T) map[string]string {
	t.Helper()
	raw, err := os.ReadFile("testdata/apisix-differences.txt")
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]string{}
	for _, line := range strings.Split(string(raw), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, why, ok := strings.Cut(line, ": ")
		if !ok || why == "" {
			t.Fatalf("a difference without a reason: %s", line)
		}
		list[name] = why
	}
	return list
}

var (
	recordedCase = regexp.MustCompile(`(?m)^(ok  |FAIL) (\S+) +[0-9.]+s\n((?:       .*\n|\n)*)`)
	recordedSums = regexp.MustCompile(`(?m)^TOTAL +(\d+) +(\d+)`)
)

// maxDoubtful bounds how many cases get a second try: when more differ, it is not the machine.
const maxDoubtful = 5

// What a running APISIX was seen to answer is answered here too, in the mode that imitates it, but for the listed differences.
func TestRecordedAPISIX(t *testing.T) {
	shared, missing := sharedDir(t)
	if len(missing) > 0 {
		t.Logf("recorded APISIX cases: 0 compared, because there is no %s (the environment variable HEADGATE_SHARED, now %q, names another folder)",
			strings.Join(missing, " and no "), os.Getenv("HEADGATE_SHARED"))
		return
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal("the runner of the recorded cases needs python3")
	}
	ports := freePortRange(t, 33) // the last one is the gateway's own
	c := startChild(t, t.TempDir(), "run", "-c", recordedConfig(t, ports+32))
	args := []string{
		filepath.Join(shared, recordingsRunner), "--file", filepath.Join(shared, recordings),
		"--data", c.addr("gateway"), "--admin", c.addr("admin"), "--control", c.addr("control"), "--metrics", c.addr("metrics"),
		"--base-port", fmt.Sprint(ports), "--tls-port", fmt.Sprint(ports + 32), "--settle", "0",
	}
	groups := []string{"admin/*", "router/*", "merge/*", "control/*", "upstream/*"}
	for _, k := range plugins.List(plugins.Options{}) {
		groups = append(groups, "plugin/"+k.Name+"/*")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	run := func(only []string) (cases [][][]byte, sums [][]byte) {
		args := slices.Clone(args)
		for _, g := range only {
			args = append(args, "--only", g)
		}
		out, err := exec.CommandContext(ctx, python, args...).CombinedOutput()
		if sums = recordedSums.FindSubmatch(out); sums == nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return recordedCase.FindAllSubmatch(out, -1), sums
	}
	cases, sums := run(groups)
	expected, seen := differences(t), map[string]bool{}
	// Some recordings are about time, and on a busy machine one of them may come out otherwise. It does not do so again and again.
	var doubtful []string
	for _, m := range cases {
		if name := string(m[2]); string(m[1]) == "FAIL" && expected[name] == "" {
			doubtful = append(doubtful, name)
		}
	}
	recovered := map[string]bool{}
	if len(doubtful) > 0 && len(doubtful) <= maxDoubtful {
		again, _ := run(doubtful)
		for _, m := range again {
			if string(m[1]) != "FAIL" {
				recovered[string(m[2])] = true
				t.Logf("%s: as recorded the second time", m[2])
			}
		}
	}
	var differs []string
	for _, m := range cases {
		name, failed := string(m[2]), string(m[1]) == "FAIL"
		seen[name] = true
		switch why := expected[name]; {
		case failed && recovered[name]:
		case failed && why == "":
			t.Errorf("%s:\n%s", name, m[3])
		case failed:
			differs = append(differs, name)
		case why != "":
			t.Errorf("%s is listed as a difference (%s), and there is none", name, why)
		}
	}
	for name := range expected {
		if !seen[name] {
			t.Errorf("%s is listed as a difference, and there is no such case among those that ran", name)
		}
	}
	if counted := fmt.Sprint(len(seen)-len(differs)-len(recovered), " ", len(differs)+len(recovered)); len(seen) == 0 || !t.Failed() && counted != string(sums[1])+" "+string(sums[2]) {
		t.Errorf("the runner counts %s as recorded and %s not, its output shows %s", sums[1], sums[2], counted)
	}
	slices.Sort(differs)
	t.Logf("recorded APISIX cases: %d as recorded, %d differ on purpose (%s)", len(seen)-len(differs), len(differs), strings.Join(differs, ", "))
}

func recordedConfig(t *testing.T, tlsPort int) string {
	dir := t.TempDir()
	file := filepath.Join(dir, "headgate.toml")
	writeFile(t, file, `[gateway]
listen = ["127.0.0.1:0"]
[gateway.tls]
listen = ["127.0.0.1:`+fmt.Sprint(tlsPort)+`"]
[admin]
listen = "127.0.0.1:0"
[[admin.keys]]
name = "admin"
key = "edd1c9f034335f136f87ad84b625c8f1"
[[admin.keys]]
name = "viewer"
key = "4054f7cf07e344346cd3f287985e76a2"
role = "viewer"
[metrics]
listen = "127.0.0.1:0"
[control]
listen = "127.0.0.1:0"
[compat]
mode = "apisix"
accept_inert = ["grpc-transcode"]
[store]
provider = "mem"
[store.encryption]
keyring = ["qeddd145sfvddff3", "edd1c9f0985e76a2"]
[access_log]
path = "off"
[audit]
path = "off"
`)
	return file
}
