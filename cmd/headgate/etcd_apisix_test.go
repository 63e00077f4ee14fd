package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"headgate/conf/store/etcd/etcdtest"
)

// apisixKey is the first key of APISIX's default keyring, which encrypts (contract sections 6 and 8).
const apisixKey = "qeddd145sfvddff3"

// apisixSeal encrypts a secret as APISIX does.
func apisixSeal(t testing.TB, text string) string {
	t.Helper()
	block, err := aes.NewCipher([]byte(apisixKey))
	if err != nil {
		t.Fatal(err)
	}
	pad := aes.BlockSize - len(text)%aes.BlockSize
	b := append([]byte(text), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, []byte(apisixKey)).CryptBlocks(b, b)
	return base64.StdEncoding.EncodeToString(b)
}

// apisixOpen decrypts what APISIX would have to read.
func apisixOpen(t testing.TB, sealed string) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil || len(b) == 0 || len(b)%aes.BlockSize != 0 {
		t.Fatalf("not sealed: %q, %v", sealed, err)
	}
	block, err := aes.NewCipher([]byte(apisixKey))
	if err != nil {
		t.Fatal(err)
	}
	cipher.NewCBCDecrypter(block, []byte(apisixKey)).CryptBlocks(b, b)
	return string(b[:len(b)-int(b[len(b)-1])])
}

// certificateFor returns a certificate and its private key as PEM texts.
func certificateFor(t testing.TB, name string) (cert, key string) {
	t.Helper()
	ca, _ := testAuthority(t)
	leaf := ca.leafFor(t, name)
	der, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// quoted is text as a JSON string.
func quoted(t testing.TB, text string) string {
	t.Helper()
	b, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// apisixPlaceholders are what an APISIX writes before anybody has configured anything (contract section 8).
func apisixPlaceholders() map[string]string {
	all := map[string]string{
		"plugins": `[{"name":"key-auth"},{"name":"prometheus"},{"stream":true,"name":"mqtt-proxy"}]`,
		"gen_id":  "1",
	}
	for _, dir := range []string{
		"routes", "services", "upstreams", "consumers", "ssls", "global_rules", "protos", "plugin_configs", "consumer_groups", "stream_routes",
		"plugin_metadata", "secrets", "plugins",
	} {
		all[dir+"/"] = "init_dir"
	}
	return all
}

// TestEtcdFilledByAPISIX: an etcd that an APISIX has filled is served as it is, and what is written into it is what APISIX would have
// written.
func TestEtcdFilledByAPISIX(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Options{})
	n := newNeighbour(t, server)
	u := newUpstream(t, "orders", nil)
	cert, key := certificateFor(t, "shop.example.com")
	for name, value := range apisixPlaceholders() {
		n.put(name, value)
	}
	const times = `"create_time":1700000000,"update_time":1700000001`
	for name, value := range map[string]string{
		"upstreams/1": fmt.Sprintf(`{"id":1,"type":"roundrobin","nodes":[{"host":"127.0.0.1","port":%s,"weight":1}],%s,`+
			`"scheme":"http","pass_host":"pass","hash_on":"vars"}`, u.addr[strings.LastIndexByte(u.addr, ':')+1:], times),
		"services/42":  `{"id":"42","upstream_id":1,"plugins":{},` + times + `}`,
		"routes/1":     `{"uri":"/orders/*","id":"1","service_id":42,"priority":0,"status":1,"plugins":{"key-auth":{"_meta":{"disable":false}}},` + times + `}`,
		"routes/2":     `{"id":2,"uris":["/open"],"upstream_id":"1","methods":["GET"],"labels":{},` + times + `}`,
		"routes/lua":   `{"id":"lua","uri":"/lua","upstream_id":1,"plugins":{"serverless-pre-function":{"functions":["return function() end"]}},` + times + `}`,
		"routes/wrong": `{"id":"wrong","uri":7}`,

		"consumers/jack":                 fmt.Sprintf(`{"username":"jack","plugins":{"key-auth":{"key":%q}},%s}`, apisixSeal(t, "jack-key"), times),
		"consumers/jack/credentials/two": fmt.Sprintf(`{"id":"two","plugins":{"key-auth":{"key":%q}},%s}`, apisixSeal(t, "jack-second-key"), times),

		"ssls/1": fmt.Sprintf(`{"id":"1","sni":"shop.example.com","cert":%s,"key":%q,"status":1,"type":"server",%s}`, quoted(t, cert), apisixSeal(t, key), times),
	} {
		n.put(name, value)
	}

	g := startGate(t, onEtcd(t, server.Endpoint()))
	a := &apisixEtcd{g: g, n: n, cert: cert, key: key}
	t.Run("served", a.served)
	t.Run("shown", a.shown)
	t.Run("written", a.written)
	t.Run("ssl", a.ssl)
	for name, want := range apisixPlaceholders() {
		if got := n.value(name); got != want {
			t.Errorf("%s is %q, before it was %q", name, got, want)
		}
	}
	a.noSecrets(t)
}

type apisixEtcd struct {
	g         *gate
	n         neighbour
	cert, key string
}

func (a *apisixEtcd) served(t *testing.T) {
	for _, tt := range []struct {
		path, key string
		status    int
	}{
		{"/orders/7", "jack-key", http.StatusOK}, {"/orders/7", "jack-second-key", http.StatusOK},
		{"/orders/7", "", http.StatusUnauthorized}, {"/orders/7", apisixSeal(t, "jack-key"), http.StatusUnauthorized},
		{"/open", "", http.StatusOK}, {"/lua", "", http.StatusNotFound},
	} {
		var fields []string
		if tt.key != "" {
			fields = []string{"apikey: " + tt.key}
		}
		if got := a.g.send("GET", "http://"+a.g.addr+tt.path, "", fields...); got.status != tt.status {
			t.Errorf("%s with key %q: %v, want %d", tt.path, tt.key, got, tt.status)
		}
	}
	left := a.g.send("GET", "http://"+a.g.process.addr("control")+"/v1/left_out", "").body
	if got := regexp.MustCompile(`"key":"([^"]*)"`).FindAllString(left, -1); len(got) != 2 || !strings.Contains(left, `"key":"routes/lua"`) ||
		!strings.Contains(left, `"key":"routes/wrong"`) || !strings.Contains(left, "serverless-pre-function") {
		t.Errorf("left out: %s", left)
	}
	if got := a.g.gauge("headgate_config_left_out"); got != 2 {
		t.Errorf("headgate_config_left_out is %v", got)
	}
}

// shown: the Admin API shows documents as they are stored, whether or not they can be used here, with clear secrets, except the private
// keys of certificates.
func (a *apisixEtcd) shown(t *testing.T) {
	clearly := func(key string) string {
		v := a.n.value(key)
		for _, secret := range []string{"jack-key", "jack-second-key"} {
			v = strings.ReplaceAll(v, apisixSeal(t, secret), secret)
		}
		return v
	}
	for _, key := range []string{"upstreams/1", "services/42", "routes/1", "routes/2", "routes/lua", "routes/wrong", "consumers/jack", "consumers/jack/credentials/two"} {
		var got struct{ Value json.RawMessage }
		if body := a.g.admin("GET", "/"+key, "").body; json.Unmarshal([]byte(body), &got) != nil || !sameJSON(t, string(got.Value), clearly(key)) {
			t.Errorf("%s: %s, want %s", key, body, clearly(key))
		}
	}
	got := a.g.admin("GET", "/ssls/1", "")
	if got.status != http.StatusOK || strings.Contains(got.body, apisixSeal(t, a.key)) || strings.Contains(got.body, "PRIVATE") {
		t.Errorf("the private key is shown: %v", got)
	}
	var list struct{ Total int }
	for path, want := range map[string]int{"/routes": 4, "/upstreams": 1, "/consumers": 1, "/ssls": 1, "/global_rules": 0} {
		if got := a.g.admin("GET", path, ""); json.Unmarshal([]byte(got.body), &list) != nil || list.Total != want {
			t.Errorf("%s: %v, want %d", path, got, want)
		}
	}
}

// sameJSON compares two texts regardless of the order of members and of spaces, with numbers as they are written.
func sameJSON(t testing.TB, x, y string) bool {
	t.Helper()
	decoded := func(text string) any {
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return v
	}
	return cmp.Equal(decoded(x), decoded(y))
}

// written: what Headgate writes has APISIX's layout, with secrets sealed under APISIX's key.
func (a *apisixEtcd) written(t *testing.T) {
	g := a.g
	const when = `"create_time":T,"update_time":T`
	for _, tt := range []struct{ method, path, body, key, want string }{
		{"PUT", "/consumers", `{"username":"jill","plugins":{"key-auth":{"key":"jill-key"}}}`, "consumers/jill",
			fmt.Sprintf(`{"username":"jill","plugins":{"key-auth":{"key":%q}},%s}`, apisixSeal(t, "jill-key"), when)},
		{"PUT", "/consumers/jack/credentials/3", `{"plugins":{"basic-auth":{"username":"jack","password":"jack-password"}}}`, "consumers/jack/credentials/3",
			fmt.Sprintf(`{"id":"3","plugins":{"basic-auth":{"username":"jack","password":%q}},%s}`, apisixSeal(t, "jack-password"), when)},
		{"PUT", "/routes/9", `{"uri":"/nine","upstream_id":1,"priority":1.0,"labels":{},"vars":[]}`, "routes/9",
			`{"id":"9","uri":"/nine","upstream_id":1,"priority":1.0,"labels":{},"vars":[],` + when + `}`},
		{"PATCH", "/routes/2", `{"desc":"patched"}`, "routes/2",
			`{"id":"2","uris":["/open"],"upstream_id":"1","methods":["GET"],"labels":{},"desc":"patched","create_time":1700000000,"update_time":T}`},
		{"PATCH", "/consumers/jack", "", "", ""}, // not supported, and nothing changes
		{"PUT", "/plugin_metadata/cors", `{"allow_origins":{"a":"http://a.example"}}`, "plugin_metadata/cors",
			`{"id":"cors","allow_origins":{"a":"http://a.example"}}`},
		{"PUT", "/secrets/vault/v1", `{"uri":"http://127.0.0.1:8200","prefix":"kv","token":"t"}`, "secrets/vault/v1",
			`{"id":"vault/v1","uri":"http://127.0.0.1:8200","prefix":"kv","token":"t",` + when + `}`},
	} {
		answer := g.admin(tt.method, tt.path, tt.body)
		if tt.want == "" {
			if answer.status != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %v", tt.method, tt.path, answer)
			}
			continue
		}
		if answer.status > 299 {
			t.Errorf("%s %s: %v", tt.method, tt.path, answer)
			continue
		}
		got := regexp.MustCompile(`("(?:create|update)_time":)17[1-9]\d{7}`).ReplaceAllString(a.n.value(tt.key), `$1"T"`)
		if !sameJSON(t, got, strings.ReplaceAll(tt.want, ":T", `:"T"`)) {
			t.Errorf("%s %s stores %s\nwant %s", tt.method, tt.path, got, tt.want)
		}
	}
	if got := g.send("GET", "http://"+g.addr+"/orders/7", "", "apikey: jill-key"); got.status != http.StatusOK {
		t.Errorf("with the new key: %v", got)
	}
	posted := g.configure("POST", "/routes", `{"uri":"/posted","upstream_id":1}`)
	id := regexp.MustCompile(`"key":"/apisix/(routes/\d{20})"`).FindStringSubmatch(posted.body)
	if id == nil || a.n.value(id[1]) == "" {
		t.Errorf("POST: %v", posted)
	}
	g.configure("DELETE", "/consumers/jack", "")
	for _, key := range []string{"consumers/jack", "consumers/jack/credentials/two", "consumers/jack/credentials/3"} {
		if v := a.n.value(key); v != "" {
			t.Errorf("%s outlives the consumer: %s", key, v)
		}
	}
}

// ssl: private keys are sealed once, whether they are written or only stay.
func (a *apisixEtcd) ssl(t *testing.T) {
	cert, key := certificateFor(t, "new.example.com")
	a.g.configure("PUT", "/ssls/new", fmt.Sprintf(`{"sni":"new.example.com","cert":%s,"key":%s}`, quoted(t, cert), quoted(t, key)))
	a.g.configure("PATCH", "/ssls/1", `{"labels":{"env":"test"}}`)
	for name, want := range map[string]string{"ssls/new": key, "ssls/1": a.key} {
		var stored struct{ Cert, Key string }
		if err := json.Unmarshal([]byte(a.n.value(name)), &stored); err != nil {
			t.Fatal(err)
		}
		if stored.Key != apisixSeal(t, want) || apisixOpen(t, stored.Key) != want {
			t.Errorf("%s: the key is not sealed as APISIX does it: %.40q", name, stored.Key)
		}
		if !strings.HasPrefix(stored.Cert, "-----BEGIN CERTIFICATE") {
			t.Errorf("%s: the certificate is not clear: %.40q", name, stored.Cert)
		}
	}
}

// noSecrets looks for clear secrets in everything that etcd holds.
func (a *apisixEtcd) noSecrets(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := a.n.client.Get(ctx, "/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range r.Kvs {
		for _, secret := range []string{"jack-key", "jack-second-key", "jill-key", "jack-password", "PRIVATE KEY"} {
			if bytes.Contains(kv.Value, []byte(secret)) {
				t.Errorf("%s holds %s in clear text: %s", kv.Key, secret, kv.Value)
			}
		}
	}
}
