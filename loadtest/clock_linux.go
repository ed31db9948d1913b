package loadtest

import (
	"syscall"
	"time"
	"unsafe"
)

// processClock reads the CPU clock of another process: all its threads, also those that ended, in
// nanoseconds (clock_getcpuclockid(3)).
func processClock(pid int) (time.Duration, error) {
	var t syscall.Timespec
	clock := ^pid<<3 | 2 // CPUCLOCK_SCHED of the whole process
	if _, _, e := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(&t)), 0); e != 0 {
		return 0, e
	}
	return time.Duration(t.Nano()), nil
}
