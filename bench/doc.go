// Command bench builds the same workloads with several builders, in turn, and compares: seconds, peak memory, and
// what went to and from the registry.
//
//	bench [-workloads go,node,apt,files] [-scenarios cold,nochange,oneline,onedep] [-builders larder,buildkit] [-runs 3]
//
// A workload is a directory below workloads/ with a Dockerfile; a scenario is what happens to it between two builds.
// Builders take turns inside each repetition (A B A B), so that a slow minute of the machine or the network hits
// both. The registry runs in this process, on loopback, and counts. A new builder is one type with the methods
// of Builder and a line in newBuilder.
package main
