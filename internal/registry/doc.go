// Package registry speaks to OCI registries: manifests and blobs by name and digest, nothing about what they mean.
//
// The protocol's few requests are made here, over containerd's docker.Authorizer for tokens. The alternatives were
// weighed by what they send. containerd's own pusher asks HEAD before each blob and each manifest (HEAD, POST, PUT for
// a blob that was made a second ago, HEAD, PUT for a manifest whose tag the caller has just read); oras-go needs two
// and one, but refuses a token server in a private network beside a registry of another name, which is what every
// self-hosted GitLab has. Here a blob costs POST and PUT, a mount one POST, a manifest one PUT, and whether to ask first
// is the caller's decision.
//
// A Client is meant to live as long as the process: it keeps connections, tokens and what it learnt about a host
// (plain HTTP or TLS, a mirror that is down).
package registry
