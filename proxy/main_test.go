package proxy

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent(), // of packages that start goroutines with the process
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1")) // fasthttp's clock of the Date header runs for ever
}
