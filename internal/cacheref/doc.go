// Package cacheref reads what --cache, --cache-from and --cache-to say: which remote cache is meant, and how it is used. The
// language is BuildKit's, as docker buildx documents it, so that lines that were written for it work here. Nothing is silently
// dropped: an attribute is honoured, or accepted with a note that it has no effect, or refused with the way out.
//
// Nothing here reads files, variables or the network: what s3 takes from the environment, package remote/s3 looks up.
package cacheref
