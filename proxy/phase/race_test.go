//go:build race

package phase

const raceEnabled = true
