//go:build race

package consumerrestriction

const raceEnabled = true
