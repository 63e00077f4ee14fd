package main

import (
	"log"
	"os"
	"sync"

	"headgate/conf"
)

// auditLog is where applied changes are written down, one line each.
type auditLog struct {
	logf func(format string, args ...any) // nil drops the lines
	path string                           // "" unless they have a file of their own

	mu   sync.Mutex
	file *os.File
}

// openAudit opens the log that path names; see conf.Audit.
func openAudit(path string, logf func(string, ...any)) (*auditLog, error) {
	switch path {
	case conf.AuditOff:
		return &auditLog{}, nil
	case conf.AuditStderr:
		return &auditLog{logf: logf}, nil
	}
	a := &auditLog{path: path}
	if err := a.reopen(); err != nil {
		return nil, err
	}
	a.logf = log.New(a, "", log.LstdFlags|log.LUTC).Printf
	return a, nil
}

// reopen opens the file anew, after its rotation. When it fails the file that is open stays in use.
func (a *auditLog) reopen() error {
	if a.path == "" {
		return nil
	}
	f, err := os.OpenFile(a.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file != nil {
		_ = a.file.Close()
	}
	a.file = f
	return nil
}

// Write implements io.Writer.
func (a *auditLog) Write(line []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.file.Write(line)
}

func (a *auditLog) line(text string) {
	if a.logf != nil {
		a.logf("audit: %s", text)
	}
}

func (a *auditLog) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file != nil {
		_ = a.file.Close()
	}
}
