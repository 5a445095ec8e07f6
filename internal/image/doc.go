// Package image makes OCI images of built states: configs with their history, manifests, an index.
//
// What it writes is byte for byte what BuildKit's image exporter writes of the same config, layers and times: fields of a
// config that nobody here knows are kept, history gets the missing times by the same rules. Only layers' bytes are others.
// Nothing here reads files or the network: layers come in as descriptors, through a function of the caller.
package image
