package main

import (
	"math"
	_ "unsafe" // for go:linkname
)

// The stack updates its keys by itself, the first time after 100 packets, and has no public way to choose when; these
// are what its own tests use.

//go:linkname firstKeyUpdateInterval github.com/quic-go/quic-go/internal/handshake.FirstKeyUpdateInterval
var firstKeyUpdateInterval uint64

//go:linkname setKeyUpdateInterval github.com/quic-go/quic-go/internal/handshake.SetKeyUpdateInterval
func setKeyUpdateInterval(packets uint64) (reset func())

// setKeyUpdate makes the stack use every key for so many packets; 0 leaves it as it is, and never is a choice too.
func setKeyUpdate(packets uint64) {
	if packets == 0 {
		return
	}
	firstKeyUpdateInterval = min(packets, math.MaxInt64)
	setKeyUpdateInterval(firstKeyUpdateInterval)
}
