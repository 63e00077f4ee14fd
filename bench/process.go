package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	readyTimeout = 60 * time.Second // for a process to accept connections, a large configuration loaded
	stopGrace    = 10 * time.Second // between SIGTERM and SIGKILL
	logTail      = 2 << 10          // bytes of a failed process's output that are shown
)

// rig owns what a run leaves on the machine: a temporary folder and processes.
type rig struct {
	dir       string
	processes []*process
}

func newRig() (*rig, error) {
	dir, err := os.MkdirTemp("", "headgate-bench-")
	if err != nil {
		return nil, err
	}
	// nginx's workers drop to another user.
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &rig{dir: dir}, nil
}

// close stops every process, last started first, and removes the folder.
func (r *rig) close() {
	for i := len(r.processes) - 1; i >= 0; i-- {
		r.processes[i].stop()
	}
	if err := os.RemoveAll(r.dir); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}

// process is a child that runs until it is stopped.
type process struct {
	name   string
	cmd    *exec.Cmd
	output string // path of its standard output and error
	ended  chan struct{}
	err    error // of Wait; valid once ended is closed
}

// start runs argv and waits until addr accepts a connection. It must be called
// from the main thread: the kernel ties the child's death signal, which stops
// it when the rig is killed, to the life of the thread that forks.
func (r *rig) start(ctx context.Context, name, addr string, argv, env []string) (*process, error) {
	p := &process{name: name, output: filepath.Join(r.dir, name+".out"), ended: make(chan struct{})}
	out, err := os.Create(p.output)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = r.dir, out, out
	p.cmd.Env = append(os.Environ(), env...)
	// An own group: an interrupt from the terminal reaches only the rig, which then stops its processes in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	r.processes = append(r.processes, p)
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, p.waitReady(ctx, addr)
}

func (p *process) waitReady(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			return c.Close()
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended at once: %v\n%s", p.name, p.err, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s: nobody listens on %s: %w\n%s", p.name, addr, ctx.Err(), p.tail())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// alive returns an error when the process has ended by itself.
func (p *process) alive() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s ended: %v\n%s", p.name, p.err, p.tail())
	default:
		return nil
	}
}

// stop ends the process, by its id: SIGTERM, then SIGKILL to its whole group.
func (p *process) stop() {
	if p.alive() != nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has just ended
	select {
	case <-p.ended:
	case <-time.After(stopGrace):
		// The leader is not waited for yet, so the id of its group is still its own.
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.ended
	}
}

// tail returns the end of what the process printed.
func (p *process) tail() string {
	b, err := os.ReadFile(p.output)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-logTail):])
}

// freeAddrs returns n loopback addresses that nobody listens on. All are held
// while the next is looked for, so no two are the same.
func freeAddrs(n int) ([]string, error) {
	addrs := make([]string, 0, n)
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer ln.Close()
		addrs = append(addrs, ln.Addr().String())
	}
	return addrs, nil
}

// goEnv returns the environment that limits a Go program to n CPUs; 0 leaves it to the program.
func goEnv(n int) []string {
	if n == 0 {
		return nil
	}
	return []string{"GOMAXPROCS=" + strconv.Itoa(n)}
}
