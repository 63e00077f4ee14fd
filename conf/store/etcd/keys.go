package etcd

import (
	"bytes"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"headgate/conf/store"
)

// ownDir is the part of the prefix that belongs to this package.
const ownDir = "headgate/fence/"

// Document tells documents from what else APISIX keeps under its prefix: the directories' init_dir placeholders, gen_id, the list of
// plugins, and reports of its instances. It goes by the key alone: what stands under the key of a document and is none has to be seen,
// or nobody could say that it is wrong, nor replace it.
func Document(key string, _ []byte) bool {
	return !strings.HasSuffix(key, "/") && key != "gen_id" && key != "plugins" && !strings.HasPrefix(key, "data_plane/")
}

// keys translates between documents' keys and etcd's.
type keys struct {
	prefix string // with a slash at the end
	keep   func(key string, value []byte) bool
}

func (k keys) full(key string) string { return k.prefix + key }

// end is the first key behind all keys with the prefix.
func (k keys) end() string { return clientv3.GetPrefixRangeEnd(k.prefix) }

// key returns the document's key of kv; ok is false for what is no document. A deletion has no value.
func (k keys) key(kv *mvccpb.KeyValue, deleted bool) (key string, ok bool) {
	name, ok := bytes.CutPrefix(kv.Key, []byte(k.prefix))
	if !ok || bytes.HasPrefix(name, []byte(ownDir)) || store.CheckKey(string(name)) != nil {
		return "", false
	}
	value := present(kv.Value)
	if deleted {
		value = nil
	}
	return string(name), k.keep(string(name), value)
}

// item returns the document in kv, without its end of life.
func (k keys) item(kv *mvccpb.KeyValue) (store.Item, bool) {
	key, ok := k.key(kv, false)
	return store.Item{Key: key, Value: present(kv.Value), CreateRevision: uint64(kv.CreateRevision), ModRevision: uint64(kv.ModRevision)}, ok
}

// present returns b, which is a value, so that an empty one is not taken for none.
func present(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
