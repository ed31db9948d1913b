package loadtest

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Busy says who used the machine during a phase, in cores. Once they add up to all of them, latencies tell of the
// machine's limit as much as of the system's.
type Busy struct {
	Phase   string   `json:"phase"`
	Seconds float64  `json:"seconds"`
	System  *float64 `json:"system"` // the processes under test
	Load    float64  `json:"load"`   // this process, with the sink
	Others  *float64 `json:"others"` // everything else on the machine
}

// watch measures from now until the returned function is called. What cannot be read is left out.
func watch(phase string, pids ...int) (stop func() Busy) {
	meter, start := Meter{PIDs: pids}, time.Now()
	system, systemErr := meter.cpu()
	all, allErr := machineCPU()
	own := ownCPU()
	return func() Busy {
		took := time.Since(start).Seconds()
		b := Busy{Phase: phase, Seconds: round(took), Load: round((ownCPU() - own).Seconds() / took)}
		systemNow, err := meter.cpu()
		if errors.Join(err, systemErr) != nil {
			return b
		}
		b.System = ref(round((systemNow - system).Seconds() / took))
		if allNow, err := machineCPU(); errors.Join(err, allErr) == nil {
			b.Others = ref(round(max(0, (allNow-all).Seconds()/took-*b.System-b.Load)))
		}
		return b
	}
}

func cores() int { return runtime.NumCPU() }

// machineCPU is the time that all cores together were not idle (proc_stat(5)), in steps of 10 ms.
func machineCPU() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseMachine(string(text))
}

func parseMachine(text string) (time.Duration, error) {
	line, _, _ := strings.Cut(text, "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return 0, errors.New("/proc/stat does not begin with the sum of all cores")
	}
	var ticks int64
	for i, text := range f[1:9] {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, err
		}
		if i != 3 && i != 4 { // idle, and idle while a disk is busy
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
