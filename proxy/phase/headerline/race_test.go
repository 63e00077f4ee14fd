//go:build race

package headerline_test

const raceEnabled = true
