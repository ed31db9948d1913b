package dispatch

import "sync"

// alone runs things beside each other, each at most once at a time: a shard whose server is slow keeps only itself waiting.
type alone struct {
	mu      sync.Mutex
	running map[string]bool
	all     sync.WaitGroup
}

// run starts fn, unless the last one of that name still runs; it says whether it did.
func (a *alone) run(name string, fn func()) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running[name] {
		return false
	}
	a.running[name] = true
	a.all.Go(func() {
		fn()
		a.mu.Lock()
		delete(a.running, name)
		a.mu.Unlock()
	})
	return true
}

// wait waits for all that run. Nothing may be started meanwhile.
func (a *alone) wait() { a.all.Wait() }
