// Package export says what can be done with a result (--output), and has what the sinks below it share: the list of an
// image's blobs, tar archives of them, files that appear only when they are complete.
package export
