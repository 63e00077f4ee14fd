package main

import (
	"context"
	"fmt"
	"os"
	"syscall"
)

// service is a process and what it is told from outside.
type service struct {
	*process
	file    string // of the configuration, "" without one
	program program
	signals <-chan os.Signal
	tell    func(state string) // who supervises the process, as sd_notify(3) has it
}

// run obeys signals until one of them ends the process, or a listener does. early are signals that came before.
func (s *service) run(early []os.Signal) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var upgrade chan succession // while the next version starts
	obey := func(sig os.Signal) (ends bool) {
		switch {
		case sig == syscall.SIGUSR1:
			s.reopenLogs()
		case sig == syscall.SIGTERM || sig == syscall.SIGINT:
			cancel()
			if upgrade != nil {
				if next := <-upgrade; next.err == nil { // it was faster, and is meant as well
					_ = syscall.Kill(next.pid, syscall.SIGTERM)
				}
			}
			s.leave(fmt.Sprint(sig), false)
			return true
		case upgrade != nil:
			s.logf("%v: not while the next version starts", sig)
		case sig == syscall.SIGHUP:
			s.reloadFile(s.file)
		case sig == syscall.SIGUSR2:
			s.logf("upgrade: starting %s", s.program.path)
			upgrade = make(chan succession, 1)
			go func() {
				pid, err := s.upgrade(ctx, s.program)
				upgrade <- succession{pid, err}
			}()
		}
		return false
	}
	for _, sig := range early {
		if obey(sig) {
			return nil
		}
	}
	for {
		select {
		case err := <-s.failed:
			s.stop(context.Background())
			return err
		case next := <-upgrade:
			upgrade = nil
			if next.err != nil {
				s.logf("upgrade: nothing was changed: %v", next.err)
				continue
			}
			s.tell(fmt.Sprintf("MAINPID=%d", next.pid))
			s.leave(fmt.Sprintf("upgrade: process %d has taken over", next.pid), true)
			return nil
		case sig := <-s.signals:
			if obey(sig) {
				return nil
			}
		}
	}
}

// leave drains. A signal that asks for the end once more ends the process at once.
func (s *service) leave(why string, takenOver bool) {
	go func() {
		for sig := range s.signals {
			if sig == syscall.SIGTERM || sig == syscall.SIGINT {
				os.Exit(1)
			}
		}
	}()
	g := s.conf.Load().Gateway
	wait := g.DrainTimeout.Std()
	if !takenOver {
		s.tell("STOPPING=1")
		wait += g.DrainDelay.Std()
	}
	s.logf("%s: draining, at most %v", why, wait)
	s.drain(takenOver)
}

func (s *service) reopenLogs() {
	if err := s.log.Reopen(); err != nil {
		s.logf("access log: %v", err)
	}
	if err := s.audit.reopen(); err != nil {
		s.logf("audit log: %v", err)
	}
}
