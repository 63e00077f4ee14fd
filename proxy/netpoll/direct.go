//go:build !race

package netpoll

// direct: sockets are read and written by raw.
const direct = true
