//go:build race

package netpoll

// direct is off under the race detector, which learns from package net, and not from a system call, that what one goroutine wrote to a
// socket happened before another one read it.
const direct = false
