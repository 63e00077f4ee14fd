package snapshot

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// fewAtOnce is how many pieces are not worth a second goroutine.
const fewAtOnce = 64

// Parallel calls f for 0 to n-1, on all processors when there are many, and returns when all are done.
func Parallel(n int, f func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), n/fewAtOnce)
	if workers < 2 {
		for i := range n {
			f(i)
		}
		return
	}
	const share = 16 // taken at a time
	var next atomic.Int64
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for {
				end := int(next.Add(share))
				if end-share >= n {
					return
				}
				for i := end - share; i < min(end, n); i++ {
					f(i)
				}
			}
		})
	}
	running.Wait()
}
