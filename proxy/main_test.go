package proxy

import (
	"testing"

	"go.uber.org/goleak"

	"headgate/proxy/leaktest"
)

// TestMain fails when goroutines are left behind by tests that start no gateway, too.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, append(leaktest.Foreign(), goleak.IgnoreCurrent())...)
}
