//go:build race

package cache

// raceEnabled: the race detector has sync.Pool forget things.
const raceEnabled = true
