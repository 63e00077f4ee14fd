// Command bench measures what a proxied request costs: Headgate, nginx, HAProxy
// and raw TCP relays in front of one upstream simulator, in interleaved rounds
// of one run. `bench storm` loads Headgate while its configuration changes all
// the time and counts lost requests. `bench scale` shows what a configuration of
// 100,000 routes costs. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"headgate/bench/relay"
	"headgate/bench/upstream"
)

func main() {
	runtime.LockOSThread() // for rig.start
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	cancel()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2) // the flag package has said why
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage")

// The sub-commands upstream, relay and relay-epoll are the rig's own children, each in a
// process of its own so that its CPU time is its own.
func run(ctx context.Context, args []string, out, notes io.Writer) error {
	command := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	switch command {
	case "":
		return compare(ctx, args, out, notes)
	case "storm":
		return storm(ctx, args, out, notes)
	case "scale":
		return scale(ctx, args, out, notes)
	case "upstream":
		return child(ctx, args, func(ln net.Listener, _ string) error { return upstream.New().Serve(ln) })
	case relayName:
		return child(ctx, args, relay.Serve)
	case epollName:
		return child(ctx, args, relay.ServeEpoll)
	}
	return fmt.Errorf("unknown command %q; known: storm, scale, or none for the comparison", command)
}

// child serves on args[0], with args[1] as its upstream if there is one, until
// the process is told to stop. Open connections are not waited for.
func child(ctx context.Context, args []string, serve func(net.Listener, string) error) error {
	if len(args) == 0 {
		return errors.New("an address to listen on is missing")
	}
	ln, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- serve(ln, append(args, "")[1]) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return ln.Close()
	}
}

// parse parses flags and refuses arguments besides them.
func parse(fs *flag.FlagSet, args []string, notes io.Writer) error {
	fs.SetOutput(notes)
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	return nil
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
