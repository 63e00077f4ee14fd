package proxy

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails when goroutines are left behind, but for those of packages that start them with the process, and fasthttp's: its clock
// of the Date header, and the cleaner of a stopped server, which ends when it wakes up the next time.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent(),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}
