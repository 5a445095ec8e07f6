// Package image finds base images: in registries, and in OCI layouts on disk.
//
// An image is found by its documents alone. Manifests and configs are kept in the local blobs, so that a build which has
// seen an image before asks the registry one thing, by HEAD: what the tag points to now. An image that is named by its
// digest costs no request at all. Layers are descriptors with a way to fetch them; nobody does before their files are needed.
package image
