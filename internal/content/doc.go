// Package content keeps blobs on the local disk, named by their sha256.
//
// A blob comes in through a temporary file, is hashed while it is written and renamed into place, so that nobody sees half
// of one. Nothing is fsynced on that way: a fresh blob lies under new/<boot id>/ and is believed only while the kernel that
// took the write runs. That is safe against kill -9, whose writes the kernel keeps, and after a power cut the blob is a
// miss (DESIGN invariants 2 and 8). Sync, called now and then off the hot path, makes all fresh blobs durable at once and
// moves them to sha256/.
//
//	sha256/ab/abcd...   durable blobs
//	new/<boot id>/...   blobs since the last Sync
//	tmp/                being written; flocked by their writer
//	leases/             one file per process: the digests that it relies on; flocked while it lives
//	lock                shared by who takes a lease, exclusive for the moment in which the collector deletes
//
// Every blob that a process stored, looked up or opened is in its lease until the process ends, so the collector of another
// process never takes away what a build was told is there.
package content
