package limit

import (
	"bytes"
	_ "embed"
	"errors"
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

// CheckPolicy refuses the policies that count outside of this process. An empty policy is local.
func CheckPolicy(policy string) error {
	if policy == "" || policy == "local" {
		return nil
	}
	return errors.New("policy " + policy + " is not available in this version")
}
