// Command conformance builds every Dockerfile of a corpus with larder and with BuildKit and compares the two images.
//
// Compared are the image config in all fields but times (diff IDs by their number, since mtimes are part of a layer's
// bytes), and the file tree that the layers add up to: type, mode, owner, content, link target, device number, extended
// attributes and hard-link groups. Both images are read from the tar that `-o type=oci` writes, by an applier of this
// command's own: it shares no code with larder, so that a mistake in larder's layer code cannot hide itself.
//
// larder builds each case twice: what comes from its cache must be what was built.
//
// A case is a txtar file in testdata: directives above, the files of its context below. parse.go lists the directives.
// Base images come from a read-only registry on loopback that the command serves itself (bases.go).
//
//	go run ./conformance -larder bin/larder -buildkit bin/peers
//	go run ./conformance -run 'copy-.*chown' -keep -v
//	go run ./conformance -larder ''        the corpus alone: BuildKit twice, the second time without its cache
//
// The exit code is 0 when every case agrees, 1 when one does not, 2 when the comparison could not be made.
package main
