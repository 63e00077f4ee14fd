//go:build !race

package multiauth

const raceEnabled = false
