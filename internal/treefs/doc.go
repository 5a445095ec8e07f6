// Package treefs shows trees as directories to a RUN step and notes all that is looked at: a read-only FUSE file system, mounted
// afresh for each step (DESIGN sections 3 and 7). Names, attributes, listings and links come from the trees, which are in memory;
// contents come from whatever opens them.
//
// The kernel remembers every answer for as long as the mount stands, so each thing is asked for once, and what it asks for is what
// there is to note. It is shown as the lower of an overlay, which checks permissions; this file system checks none.
//
// What a caller has to keep to:
//
//   - The process that serves may touch the mount, and overlays on it, by ordinary calls only. It must not start a program from
//     there, nor with a working directory there, by package os/exec: the runtime holds still what would have to serve that. Let a
//     program from elsewhere do it (sh -c "cd ... && ..."). Nor may it map files of the mount into its memory.
//   - Close comes after the overlays on top are unmounted. Who still holds something open there gets "transport endpoint is not
//     connected" from then on, and keeps nothing from ending.
//   - With passthrough, the file system counts as one that is stacked on another, and an overlay on it as the last that the kernel
//     lets be stacked: nothing in a step can mount an overlay on its root file system.
package treefs
