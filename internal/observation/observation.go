// Package observation says what a RUN step looked at in the layers that it was observed on, and what it would see there today
// (DESIGN sections 2 and 3). It knows trees only: who served them, and how, is nothing to it.
//
// A Look is a path and the ways in which it was looked at; a Set is the looks at all parts that one step was served, without
// what was seen; Values are what a tree answers to looks. Two trees that give the same values to all that a step looked at are
// the same to that step.
package observation

// Kind is a set of ways to look at a path. The numbers are stored: they never change.
type Kind uint8

const (
	// Entry is what a look-up tells: that there is nothing of that name; or the kind, mode, owner, device number and extended attributes of
	// what there is, whether it is a whiteout or an opaque directory, the target of a link, the other names of a file, its size and its
	// bytes. Nobody need have read them: a stat shows a time, and a program that trusts times, above all one that keeps what it made in a
	// cache mount, goes by that as if it had. An edit that keeps the size is rare, one that a stat does not see must not be missed.
	Entry Kind = 1 << iota
	// List is the names in a directory, and of what kind each is.
	List
	// Content is the bytes of a file.
	Content
	_ // a kind that there was
	// Whole is all that there is at and below a path but times. It includes the other kinds.
	Whole
	known = Entry | List | Content | Whole // 32 was one more
)

// Look is a path that was looked at: without a slash in front, "" for the root.
type Look struct {
	Path string
	Kind Kind
}

// Set is a path set: the looks at each part that a step was served, sorted by path, no path twice.
type Set struct {
	Parts [][]Look
}
