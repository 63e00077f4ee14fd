package resource

import (
	"errors"

	"headgate/conf/schema"
)

// ValidateUpstream judges an upstream that stands inside another document, such as a plugin's configuration: its schema and the
// checks that no schema can express. References to other documents are not looked up.
func ValidateUpstream(doc map[string]any) *Error {
	if err := CheckSchema(Kind{Segment: segmentUpstreams}, doc); err != nil {
		return Invalid(badConfiguration + err.Error())
	}
	return checkUpstream(doc, nil)
}

// checkUpstream judges an upstream that satisfies its schema. env may be nil: then references are not looked up.
func checkUpstream(doc map[string]any, env Env) *Error {
	f := fields{doc: doc}
	if f.nodes(); f.err != nil {
		var port portError
		switch {
		case errors.As(f.err, &port):
			return Invalid(port.Error())
		case errors.Is(f.err, errBareIPv6):
			return Invalid(badConfiguration + errBareIPv6.Error())
		}
		return Invalid(badConfiguration + f.err.Error())
	}
	if err := checkUpstreamTLS(doc["tls"], env); err != nil {
		return err
	}
	if doc["pass_host"] == "rewrite" && !has(doc, "upstream_host") {
		return Invalid("`upstream_host` can't be empty when `pass_host` is `rewrite`")
	}
	if err := checkHashKey(doc); err != nil {
		return err
	}
	if _, err := upstreamFrom(doc); err != nil {
		return Invalid(badConfiguration + err.Error())
	}
	return nil
}

func checkHashKey(doc map[string]any) *Error {
	if doc["type"] != "chash" {
		return nil
	}
	hashOn, _ := doc["hash_on"].(string)
	if hashOn == "consumer" {
		return nil
	}
	key, ok := doc["key"]
	if !ok {
		return Invalid("missing key")
	}
	var rule *schema.Schema
	switch hashOn {
	case "", "vars":
		rule = schemas().hashVar
	case "header", "cookie":
		rule = schemas().hashName
	default:
		return nil
	}
	if err := rule.Validate(key); err != nil {
		return Invalid(badConfiguration + err.Error())
	}
	return nil
}

// checkUpstreamTLS judges the client certificate. The texts never contain the key.
func checkUpstreamTLS(v any, env Env) *Error {
	doc, _ := v.(map[string]any)
	if id, ok := doc["client_cert_id"]; ok && env != nil {
		id := idText(id)
		key := segmentSSLs + "/" + id
		if !env.Exists(key) {
			return noSuch("ssl", id)
		}
		if raw := env.Document(key); raw != nil {
			if ssl, err := DecodeSSL(raw); err != nil || ssl.Type != "client" {
				return Invalid("failed to fetch ssl info by ssl id [" + id + "], wrong ssl type")
			}
		}
	}
	cert, _ := doc["client_cert"].(string)
	key, _ := doc["client_key"].(string)
	if cert == "" {
		return nil
	}
	if err := checkPair(cert, key, lenientMismatch(env)); err != nil {
		return Invalid(err.Error())
	}
	return nil
}
