package main

import (
	"log"
	"os"

	"headgate/conf"
)

// auditLog is where applied changes are written down, one line each.
type auditLog struct {
	logf func(format string, args ...any) // nil drops the lines
	file *os.File                         // nil unless they have a file of their own
}

// openAudit opens the log that path names; see conf.Audit.
func openAudit(path string, logf func(string, ...any)) (*auditLog, error) {
	switch path {
	case conf.AuditOff:
		return &auditLog{}, nil
	case conf.AuditStderr:
		return &auditLog{logf: logf}, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &auditLog{logf: log.New(f, "", log.LstdFlags|log.LUTC).Printf, file: f}, nil
}

func (a *auditLog) line(text string) {
	if a.logf != nil {
		a.logf("audit: %s", text)
	}
}

func (a *auditLog) close() {
	if a.file != nil {
		_ = a.file.Close()
	}
}
