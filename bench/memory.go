package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// peakOf reads a process's highest resident memory in bytes, 0 when it is gone. It is the process's own: the
// resource usage that wait returns would include what RUN steps took.
func peakOf(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			if f := bytes.Fields(rest); len(f) > 0 {
				kib, _ := strconv.ParseInt(string(f[0]), 10, 64)
				return kib << 10
			}
		}
	}
	return 0
}

// resetPeakOf makes the kernel forget a process's peak.
func resetPeakOf(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// watchPeak reads a process's peak every ten milliseconds until stop is called, which returns the highest. The kernel
// keeps the peak, so only growth in the last moments of a process is missed.
func watchPeak(pid int) (stop func() int64) {
	quit, result := make(chan struct{}), make(chan int64)
	go func() {
		var peak int64
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			peak = max(peak, peakOf(pid))
			select {
			case <-tick.C:
			case <-quit:
				result <- peak
				return
			}
		}
	}()
	return func() int64 {
		close(quit)
		return <-result
	}
}
