package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"strconv"

	"headgate/conf"
	"headgate/proxy"
	"headgate/proxy/snapshot"
)

// certificateOptions is what [gateway.tls] says about certificates. It reads the files of the default one.
func certificateOptions(c *conf.Config) (snapshot.TLSOptions, error) {
	t := c.Gateway.TLS
	o := snapshot.TLSOptions{MinVersion: tls.VersionTLS12, Protocols: []string{"http/1.1"}, Tickets: t.SessionTickets}
	if t.MinVersion == conf.TLS13 {
		o.MinVersion = tls.VersionTLS13
	}
	if t.HTTP2 {
		o.Protocols = []string{"h2", "http/1.1"}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return o, fmt.Errorf("%s: %w", tlsCertFile, err)
		}
		o.Default = &pair
	}
	return o, nil
}

const tlsCertFile = "gateway.tls.cert_file"

// listenerOptions is what it says about connections.
func listenerOptions(c *conf.Config) proxy.TLSOptions {
	t := c.Gateway.TLS
	return proxy.TLSOptions{HandshakeTimeout: t.HandshakeTimeout.Std(), MaxHandshakes: t.MaxHandshakes, FallbackSNI: t.FallbackSNI, HTTP2: t.HTTP2}
}

// httpsPort is where plain clients are sent that should come over TLS: the port of the first listener, 0 without one.
func httpsPort(c *conf.Config) uint16 {
	if len(c.Gateway.TLS.Listen) == 0 {
		return 0
	}
	_, port, err := net.SplitHostPort(c.Gateway.TLS.Listen[0])
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(port, 10, 16)
	return uint16(n)
}
