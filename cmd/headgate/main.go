// Headgate is an edge gateway that splits HTTP traffic, AI traffic above all, between versions, models and providers. It speaks the
// Apache APISIX Admin API.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/dlclark/regexp2/v2"

	"headgate/conf"
)

// version is stamped by the build.
var version = "dev"

const usage = `headgate splits HTTP and AI traffic between versions, models and providers.

usage:
  headgate run [-c FILE]     serve; without -c, conf/headgate.toml if it exists, else the built-in defaults
  headgate check -c FILE     validate a configuration file and say what is wrong with it
  headgate explain [-c FILE | -control ADDR] [-X METHOD] [-H 'Name: value']... [-d BODY] [-client ADDR] [-consumer NAME] [-bucket B] [-json] URL
                             say what would become of a request, by a file or in the running gateway
  headgate import -config-yaml FILE [-apisix-yaml FILE] [-o FILE]
                             turn the files of an APISIX installation into a configuration of Headgate
  headgate demo [-listen A] [-admin A] [-metrics A] [-control A]
                             the gateway and two AI upstreams in one process, with a split to play with
  headgate version           print the version
`

const defaultFile = "conf/headgate.toml"

// regexpTick is how often patterns that may backtrack look at their time limit. The library's default would let one run for a fifth of a
// second.
const regexpTick = 5 * time.Millisecond

func main() {
	regexp2.SetTimeoutCheckPeriod(regexpTick)
	os.Exit(command(os.Args[1:], os.Stdout, os.Stderr))
}

// command runs a sub-command and returns the exit status: 0, 1 when it failed, 2 when it was called wrongly.
func command(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage) }
	var err error
	switch args[0] {
	case "run":
		file := flags.String("c", "", "configuration file")
		if flags.Parse(args[1:]) != nil || flags.NArg() > 0 {
			return 2
		}
		err = runCommand(*file, stderr)
	case "check":
		file := flags.String("c", "", "configuration file")
		if flags.Parse(args[1:]) != nil || flags.NArg() > 0 || *file == "" {
			fmt.Fprint(stderr, usage)
			return 2
		}
		err = check(*file, stdout)
	case "import":
		var o importOptions
		flags.StringVar(&o.config, "config-yaml", "", "config.yaml of an APISIX installation")
		flags.StringVar(&o.resources, "apisix-yaml", "", "apisix.yaml of an APISIX installation")
		flags.StringVar(&o.out, "o", "", "where to write the configuration; standard output by default")
		if flags.Parse(args[1:]) != nil || flags.NArg() > 0 || o.config == "" {
			fmt.Fprint(stderr, usage)
			return 2
		}
		err = importCommand(o, stdout, stderr)
	case "demo":
		listen := flags.String("listen", "127.0.0.1:9080", "address of the gateway")
		adminAddr := flags.String("admin", "127.0.0.1:9180", "address of the Admin API")
		metrics := flags.String("metrics", "127.0.0.1:9091", "address of the metrics")
		control := flags.String("control", "127.0.0.1:9090", "address of the control API")
		if flags.Parse(args[1:]) != nil || flags.NArg() > 0 {
			return 2
		}
		err = demoCommand(demoOptions{listen: *listen, admin: *adminAddr, metrics: *metrics, control: *control}, stdout, stderr)
	case "explain":
		return explainCommand(args[1:], stdout, stderr)
	case "version", "-v", "--version":
		fmt.Fprintf(stdout, "headgate %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	case "help", "-h", "--help":
		fmt.Fprint(stdout, usage)
	default:
		fmt.Fprintf(stderr, "headgate: unknown command %q\n\n%s", args[0], usage)
		return 2
	}
	if err != nil {
		fmt.Fprintf(stderr, "%v\n", err)
		return 1
	}
	return 0
}

// load reads the configuration of run: the file given, else the default file if it is there, else the built-in defaults.
func load(file string) (*conf.Config, string, error) {
	if file != "" {
		c, err := conf.Examine(file)
		return c, file, err
	}
	c, err := conf.Examine(defaultFile)
	if errors.Is(err, fs.ErrNotExist) {
		return conf.Default(), "", nil
	}
	return c, defaultFile, err
}

// check validates file as far as that is possible without starting anything, the resources in it included.
func check(file string, stdout io.Writer) error {
	c, err := conf.Examine(file)
	if c != nil {
		err = checkAll(c, err, false)
	}
	if err != nil {
		return err
	}
	if c.Store.Provider == conf.StoreFile {
		s, err := openFile(c, func(string, ...any) {})
		if err != nil {
			return err
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
	for _, w := range c.Warnings(time.Now()) {
		fmt.Fprintf(stdout, "warning: %s\n", w)
	}
	fmt.Fprintf(stdout, "%s: ok\n", file)
	return nil
}

// runCommand serves until SIGTERM or SIGINT.
func runCommand(file string, stderr io.Writer) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	c, file, wrong := load(file)
	if c == nil {
		return wrong
	}
	// Before anything is created. When all that is missing is what the resources refer to, it may be in the store: start will ask.
	if err := checkAll(c, wrong, false); err != nil && checkAll(c, wrong, true) != nil {
		return err
	}
	logger := log.New(stderr, "", log.LstdFlags|log.LUTC)
	what, whatErr := thisProgram()
	in, err := inherit()
	if err != nil {
		return err
	}
	defer in.close()
	p, early, err := begin(c, in, logger.Printf, signals)
	if err != nil {
		return err
	}
	succeeds := in.ready()
	service := &service{process: p, file: file, program: what, signals: signals, tell: func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil {
			logger.Printf("NOTIFY_SOCKET: %v", err)
		}
	}}
	if whatErr != nil {
		logger.Printf("WARNING: SIGUSR2 will not work: %v", whatErr)
	}
	if !succeeds { // else the service is up already, and its main process says which one is to be the next
		service.tell("READY=1")
	}
	return service.run(early)
}

// begin starts the process. Signals of that time kill nobody's request: early are those to obey when it is up. The first that asks for
// the end cuts short what the start waits for, the second ends the process at once.
func begin(c *conf.Config, in *inheritance, logf func(string, ...any), signals <-chan os.Signal) (p *process, early []os.Signal, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	started := make(chan struct{})
	go func() {
		defer close(started)
		p, err = start(ctx, c, in, logf)
	}()
	for {
		select {
		case <-started:
			return p, early, err
		case s := <-signals:
			early = append(early, s)
			if s != syscall.SIGTERM && s != syscall.SIGINT {
				continue
			}
			if ctx.Err() != nil {
				os.Exit(1)
			}
			logf("%v: ends as soon as the start does", s)
			cancel()
		}
	}
}
