package etcd

import (
	"context"
	"math/rand/v2"
	"time"
)

// pause waits before try+1: twice as long each time up to longestPause, half of it random, so that the gateways of one etcd do not
// come back all at once. It returns early when ctx ends.
func pause(ctx context.Context, try int) {
	full := min(100*time.Millisecond<<min(try, 10), longestPause)
	t := time.NewTimer(full/2 + rand.N(full/2))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
