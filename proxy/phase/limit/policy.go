package limit

import (
	"bytes"
	_ "embed"
)

//go:embed redis.json
var redisJSON []byte

//go:embed redis-cluster.json
var clusterJSON []byte

// WithPolicies returns the schema with what the policies redis and redis-cluster need in the places of {"$ref": "redis.json"} and
// {"$ref": "redis-cluster.json"}.
func WithPolicies(schema []byte) []byte {
	schema = bytes.Replace(schema, []byte(`{"$ref": "redis.json"}`), redisJSON, 1)
	return bytes.Replace(schema, []byte(`{"$ref": "redis-cluster.json"}`), clusterJSON, 1)
}
