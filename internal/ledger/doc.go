// Package ledger decides with which times files are shown to the tools that compare them (DESIGN section 3, Times): above all those
// that keep results in cache mounts, where an object counts as made of a file that is older, or whose time is the one noted.
//
// A ledger says what was shown last: a tree with the digests and times of files at their places. Files that are as the ledger says
// keep its times, whatever a checkout, or a layer that was made long ago, says. Those that are not are newer than everything that could
// have been made of what was there before. So nothing old counts as made of them, and what was made of them stays good for as long as
// they stay.
//
// Ledgers look like trees and are none: of a node only kind, digest, size, link target and mtime count, a directory's mtime is 0 where
// none was shown, and uid and gid are sets of bits. The gid says who saw the path when he last looked; the uid has also those who did not
// look since it was shown as new, and nobody where it was deleted; see Merge. The root's own mtime is the latest time that the ledger ever held,
// but for times from the future.
//
// All functions are pure, but that Merge asks what time it is; errors are those of fetching directories of the trees given.
package ledger
