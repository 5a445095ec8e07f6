package remote

// Options choose what Wrap puts around a store.
type Options struct {
	Policy Policy
	// Reads and Writes limit how many of them go on at once: 8 each where they are 0.
	Reads, Writes int
}

// Wrap puts the decorators around a store in the order in which they belong: Limit outermost, so that what waits for its turn does
// not use up its patience, and what waits out a brownout keeps its place rather than let the next one run into it; then Verify, so
// that a download that Retry put together from pieces is compared as a whole; then Retry.
func Wrap(s Store, opt Options) Store {
	if opt.Reads == 0 {
		opt.Reads = 8
	}
	if opt.Writes == 0 {
		opt.Writes = 8
	}
	return Limit(Verify(Retry(s, opt.Policy)), opt.Reads, opt.Writes)
}
