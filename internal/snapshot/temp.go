package snapshot

// Temp makes a directory for files that are on their way elsewhere. It goes when the store is closed; after a process that died, Recover
// removes it.
func (s *Store) Temp() (string, error) { return s.tempDir("f") }
