package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"headgate/conf"
	"headgate/proxy"
)

// takeoverTimeout is how long the next version of the program may take to serve. A start with hundreds of thousands of routes takes
// seconds; what takes longer than this hangs.
const takeoverTimeout = 2 * time.Minute

// endGrace is how long a process that has hung up may take to say why and to end.
const endGrace = 5 * time.Second

var errSuccessorEnded = errors.New("the new process ended before it served")

// program is what the process was started as, found before anything can be renamed or the directory changed.
type program struct {
	path string
	args []string
	dir  string
}

// thisProgram finds the file by the name it was called by: behind a link there may be a newer version by then.
func thisProgram() (program, error) {
	dir, err := os.Getwd()
	if err != nil {
		return program{}, err
	}
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		path, err = os.Executable()
	}
	return program{path, os.Args, dir}, err
}

// socket is a listener and what it was opened for.
type socket struct {
	name     string
	listener *proxy.Listener
}

// succession is the outcome of an upgrade: the process that took over, or why none did.
type succession struct {
	pid int
	err error
}

// upgrade starts the program anew with the sockets of this process, lets it have the store, and returns when it serves. When it does not
// come to that, it is ended, and everything here is as before. ctx ends the attempt.
func (p *process) upgrade(ctx context.Context, what program) (pid int, err error) {
	if p.conf.Load().Store.Provider == conf.StoreMem {
		return 0, errors.New("store.provider mem keeps everything in this process: another one would start with nothing")
	}
	next, err := p.startSuccessor(what)
	if err != nil {
		return 0, err
	}
	defer next.line.Close()
	stop := context.AfterFunc(ctx, func() { _ = next.line.Close() })
	defer stop()
	if err = p.converse(next); err == nil {
		pid = next.process.Pid // which Release forgets
		_ = next.process.Release()
		return pid, nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	grace := time.Duration(0)
	if errors.Is(err, errSuccessorEnded) {
		grace = endGrace
	}
	kill := time.AfterFunc(grace, func() { _ = next.process.Kill() })
	defer kill.Stop()
	if state, failed := next.process.Wait(); failed == nil && state.Exited() {
		err = fmt.Errorf("%w (%s)", err, state)
	}
	if p.lent != nil {
		if failed := p.lent.TakeBack(); failed != nil {
			err = fmt.Errorf("%w; and the store cannot be opened again: %w", err, failed)
		}
	}
	return 0, err
}

// converse answers the successor until it serves.
func (p *process) converse(next *successor) error {
	if err := next.line.SetDeadline(time.Now().Add(takeoverTimeout)); err != nil {
		return err
	}
	for lines := bufio.NewReader(next.line); ; {
		line, err := lines.ReadString('\n')
		var late net.Error
		switch {
		case errors.As(err, &late) && late.Timeout():
			return fmt.Errorf("the new process does not serve after %v", takeoverTimeout)
		case err != nil:
			return errSuccessorEnded
		}
		switch strings.TrimSuffix(line, "\n") {
		case sayReady:
			return nil
		case sayStore:
			if p.lent != nil {
				if err := p.lent.Lend(); err != nil {
					return fmt.Errorf("closing the store: %w", err)
				}
			}
			if _, err := io.WriteString(next.line, sayStore+"\n"); err != nil {
				return err
			}
		case sayState:
			if err := p.leaveTo(next.line); err != nil {
				return err
			}
		default:
			return fmt.Errorf("the new process says %q", line)
		}
	}
}

// leaveTo sends the legacy.
func (p *process) leaveTo(line io.Writer) error {
	tickets, err := p.compiler.Tickets().Secrets()
	if err != nil {
		return err
	}
	text, err := json.Marshal(legacy{Tickets: tickets})
	if err != nil {
		return err
	}
	_, err = line.Write(append(text, '\n'))
	return err
}

// inheritState takes over what the predecessor leaves. Without it clients begin anew, which is no reason not to serve them.
func (p *process) inheritState(in *inheritance) {
	left, err := in.takeState()
	if err == nil && left.Tickets != nil {
		err = p.compiler.Tickets().Adopt(left.Tickets)
	}
	if err != nil {
		p.logf("upgrade: clients cannot resume their TLS sessions: %v", err)
	}
}

// successor is the process that is to take over, and the line to it.
type successor struct {
	process *os.Process
	line    net.Conn
}

// startSuccessor starts the program with copies of the sockets. os/exec would make the sockets of this process blocking, which they share
// with their copies.
func (p *process) startSuccessor(what program) (*successor, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	mine, theirs := os.NewFile(uintptr(ends[0]), "successor"), ends[1]
	defer mine.Close() // line has a descriptor of its own
	defer func() { _ = unix.Close(theirs) }()
	line, err := net.FileConn(mine)
	if err != nil {
		return nil, err
	}
	files := []uintptr{0, 1, 2, uintptr(theirs)}
	h := handover{State: true}
	defer func() {
		for _, fd := range files[firstSocketFD:] {
			_ = unix.Close(int(fd))
		}
	}()
	for _, s := range p.sockets {
		fd, err := s.listener.Descriptor()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", s.name, err), line.Close())
		}
		files = append(files, uintptr(fd))
		h.Sockets = append(h.Sockets, s.name)
	}
	text, err := json.Marshal(h)
	if err != nil {
		return nil, errors.Join(err, line.Close())
	}
	env := append(os.Environ(), handoverEnv+"="+string(text)) // inherit has taken out what was there
	pid, err := syscall.ForkExec(what.path, what.args, &syscall.ProcAttr{Dir: what.dir, Env: env, Files: files})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", what.path, err), line.Close())
	}
	started, err := os.FindProcess(pid)
	if err != nil {
		return nil, errors.Join(err, line.Close())
	}
	return &successor{started, line}, nil
}
