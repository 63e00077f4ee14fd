package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"

	"headgate/proxy"
)

// handoverEnv tells a process that it is to take over from the one that started it: what it inherited, as JSON.
const handoverEnv = "HEADGATE_HANDOVER"

// The descriptors that a successor is started with: the line to its predecessor, then the sockets in the order of handover.Sockets.
const (
	lineFD        = 3
	firstSocketFD = 4
)

// handover is the value of handoverEnv.
type handover struct {
	// Sockets are the settings that each inherited socket was opened for, see process.listener.
	Sockets []string `json:"sockets"`
	// State says that the predecessor knows sayState.
	State bool `json:"state,omitempty"`
}

// legacy is what a successor gets besides sockets and store, so that clients do not notice the change. It is never written anywhere but to the
// line between the two processes.
type legacy struct {
	// Tickets are the keys with which session tickets are opened, see snapshot.Tickets.
	Tickets json.RawMessage `json:"tickets,omitempty"`
}

// What the two processes say to each other, a line each.
const (
	sayStore = "store" // the successor: let go of the store; the predecessor: it is yours
	sayReady = "ready" // the successor: I serve
	sayState = "state" // the successor: what is there to be known; the predecessor: a legacy, as JSON
)

// inheritance is what a process was given when it was started: sockets that listen already, from its predecessor or from systemd. The
// zero value is the ordinary case, nothing.
type inheritance struct {
	named    map[string][]net.Listener // by what the predecessor opened them for
	nameless []net.Listener            // from systemd; their addresses tell what they are for
	line     net.Conn                  // to the predecessor, nil without one
	replies  *bufio.Reader
	state    bool // the predecessor has a legacy
}

// inherit looks at the environment, once, and takes out of it what is meant for this process alone.
func inherit() (*inheritance, error) {
	i := &inheritance{named: map[string][]net.Listener{}}
	var err error
	if i.nameless, err = activation.Listeners(); err != nil {
		return nil, fmt.Errorf("LISTEN_FDS: %w", err)
	}
	text, given := os.LookupEnv(handoverEnv)
	if !given {
		return i, nil
	}
	if err := os.Unsetenv(handoverEnv); err != nil {
		return nil, err
	}
	var h handover
	if err := json.Unmarshal([]byte(text), &h); err != nil {
		return nil, fmt.Errorf("%s: %w", handoverEnv, err)
	}
	for n, name := range h.Sockets {
		f := os.NewFile(uintptr(firstSocketFD+n), name)
		l, err := net.FileListener(f)
		_ = f.Close() // l has a descriptor of its own
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", handoverEnv, name, err)
		}
		i.named[name] = append(i.named[name], l)
	}
	f := os.NewFile(lineFD, "predecessor")
	defer f.Close()
	if i.line, err = net.FileConn(f); err != nil {
		return nil, fmt.Errorf("%s: %w", handoverEnv, err)
	}
	i.replies, i.state = bufio.NewReader(i.line), h.State
	return i, nil
}

// listen returns an inherited socket for the setting, or opens a new one.
func (i *inheritance) listen(ctx context.Context, setting, addr string) (*proxy.Listener, error) {
	name := setting + " " + addr
	if list := i.named[name]; len(list) > 0 {
		i.named[name] = list[1:]
		return proxy.Adopt(list[0]), nil
	}
	for n, l := range i.nameless {
		if l != nil && sameAddress(addr, l.Addr()) {
			i.nameless[n] = nil
			return proxy.Adopt(l), nil
		}
	}
	return proxy.Listen(ctx, addr)
}

// sameAddress says whether a socket that listens on has is what the setting want asks for.
func sameAddress(want string, has net.Addr) bool {
	t, ok := has.(*net.TCPAddr)
	if !ok {
		return false
	}
	listens := t.AddrPort()
	host, port, err := net.SplitHostPort(want)
	if err != nil || port == "0" {
		return false
	}
	switch host {
	case "":
		host = "::" // both families
	case "localhost":
		host = "127.0.0.1"
	}
	asked, err := netip.ParseAddrPort(net.JoinHostPort(host, port))
	return err == nil && asked == netip.AddrPortFrom(listens.Addr().Unmap(), listens.Port())
}

// takeStore returns when the predecessor has let go of the store, or is gone, which comes to the same.
func (i *inheritance) takeStore() error {
	if i.line == nil {
		return nil
	}
	if _, err := io.WriteString(i.line, sayStore+"\n"); err != nil {
		return nil
	}
	switch reply, err := i.replies.ReadString('\n'); {
	case err != nil, reply == sayStore+"\n":
		return nil
	default:
		return fmt.Errorf("the process that is to be replaced says %q", strings.TrimSpace(reply))
	}
}

var errLegacy = errors.New("the process that is to be replaced says of its state what is none")

// takeState returns what the predecessor leaves, nothing without one or when it is gone. Errors show no byte of it.
func (i *inheritance) takeState() (l legacy, err error) {
	if !i.state {
		return legacy{}, nil
	}
	if _, err := io.WriteString(i.line, sayState+"\n"); err != nil {
		return legacy{}, nil
	}
	reply, err := i.replies.ReadBytes('\n')
	if err != nil {
		return legacy{}, nil
	}
	if json.Unmarshal(reply, &l) != nil {
		return legacy{}, errLegacy
	}
	return l, nil
}

// ready tells the predecessor that this process serves, and closes what nobody asked for. It returns whether there was one.
func (i *inheritance) ready() (succeeds bool) {
	if succeeds = i.line != nil; succeeds {
		_, _ = io.WriteString(i.line, sayReady+"\n") // when it is gone, nobody has to know
	}
	i.close()
	return succeeds
}

// close gives back what was not used: sockets on which nobody would accept.
func (i *inheritance) close() {
	for _, l := range i.nameless {
		if l != nil {
			_ = l.Close()
		}
	}
	for _, list := range i.named {
		for _, l := range list {
			_ = l.Close()
		}
	}
	if i.line != nil {
		_ = i.line.Close()
	}
	*i = inheritance{}
}
