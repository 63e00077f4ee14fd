package resource

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strconv"
	"strings"

	"headgate/conf/schema"
)

// Texts that the contract fixes (section 1.6 and apisix-observed on 1.2).
var (
	errNoPEM  = errors.New("failed to parse cert: PEM_read_bio_X509_AUX() failed")
	errSealed = errors.New("failed to decrypt previous encrypted key")
)

// switchKeyMismatch lets a key pass that does not belong to its certificate, as the contract's gateway does.
const switchKeyMismatch = "ssl_key_mismatch"

func lenientMismatch(env Env) bool { return env != nil && env.Lenient(switchKeyMismatch) }

// checkSSL judges a certificate that satisfies its schema. No text contains a key.
func checkSSL(doc map[string]any, env Env) *Error {
	f := fields{doc: doc}
	lenient := lenientMismatch(env)
	if err := checkPair(f.text("cert"), f.text("key"), lenient); err != nil {
		return Invalid(err.Error())
	}
	certs, keys := f.texts("certs"), f.texts("keys")
	if len(certs) != len(keys) {
		return Invalid("mismatched number of certs and keys")
	}
	for i, cert := range certs {
		if err := checkPair(cert, keys[i], lenient); err != nil {
			return Invalid("failed to handle cert-key pair[" + strconv.Itoa(i+1) + "]: " + err.Error())
		}
	}
	if client := f.object("client"); client != nil {
		if ca := client.text("ca"); !schema.IsReference(ca) {
			if _, err := parseCertificates(ca); err != nil {
				return Invalid("failed to validate client_cert: " + err.Error())
			}
		}
	}
	if names := f.oneOrMany("sni", "snis"); f.err == nil {
		for _, name := range names {
			if schema.IsReference(name) { // names of servers decide what is shown to whom: they must be known here
				return Invalid(badConfiguration + "sni: a reference can't be a server name")
			}
		}
	}
	return nil
}

// checkPair judges a certificate chain and its key, except for what is a reference: what that stands for is not known here.
func checkPair(cert, key string, lenient bool) error {
	var chain []*x509.Certificate
	var err error
	if !schema.IsReference(cert) {
		if chain, err = parseCertificates(cert); err != nil {
			return err
		}
	}
	if schema.IsReference(key) {
		return nil
	}
	if !strings.HasPrefix(strings.TrimLeft(key, " \t\r\n"), "---") {
		return errSealed
	}
	private, err := parseKey(key)
	if err != nil {
		return errors.New("failed to parse key: " + err.Error())
	}
	if chain == nil || lenient {
		return nil
	}
	public, ok := private.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(chain[0].PublicKey) {
		return errors.New("failed to parse key: the key does not belong to the certificate")
	}
	return nil
}

// parseCertificates returns at least one certificate.
func parseCertificates(text string) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" && block.Type != "X509 CERTIFICATE" && block.Type != "TRUSTED CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("failed to parse cert: " + err.Error())
		}
		chain = append(chain, cert)
	}
	if len(chain) == 0 {
		return nil, errNoPEM
	}
	return chain, nil
}

// parseKey takes the first private key of the text, in PKCS #8, PKCS #1 or SEC 1. Error texts are its own: those of the parsers may
// repeat what they read.
func parseKey(text string) (crypto.Signer, error) {
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("no PEM private key found")
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || bytes.Contains([]byte(block.Headers["Proc-Type"]), []byte("ENCRYPTED")) {
			return nil, errors.New("the key is protected by a passphrase")
		}
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if signer, ok := key.(crypto.Signer); ok {
				return signer, nil
			}
			return nil, errors.New("the key can't sign")
		}
		if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
			return key, nil
		}
		if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
			return key, nil
		}
		return nil, errors.New("not a private key in PKCS #8, PKCS #1 or SEC 1")
	}
}
