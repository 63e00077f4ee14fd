//go:build race

package main

// raceDetector says that the tests run under it. It allocates by itself and makes sync.Pool forget on purpose.
const raceDetector = true
