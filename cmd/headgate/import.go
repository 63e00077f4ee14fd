package main

import (
	"fmt"
	"io"
	"os"

	"headgate/conf/apisix"
)

type importOptions struct {
	config, resources string // files of an APISIX installation; resources may be empty
	out               string // "" is standard output
}

// importCommand writes what Headgate is to be configured with to do what an APISIX installation does, and says what it could not carry.
func importCommand(o importOptions, stdout, stderr io.Writer) error {
	config, err := os.ReadFile(o.config)
	if err != nil {
		return err
	}
	var resources []byte
	if o.resources != "" {
		if resources, err = os.ReadFile(o.resources); err != nil {
			return err
		}
	}
	text, notes, err := apisix.Import(config, resources)
	if err != nil {
		return err
	}
	for _, n := range notes {
		fmt.Fprintf(stderr, "note: %s\n", n)
	}
	if o.out == "" {
		_, err = stdout.Write(text)
		return err
	}
	// Keys and passwords that the installation has in clear text are in it.
	f, err := os.OpenFile(o.out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(text); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
