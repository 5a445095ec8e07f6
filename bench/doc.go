// Command bench builds the same workloads with several builders, in turn, and compares: seconds, peak memory, and
// what went to and from the registry.
//
//	bench [-workloads go,node,node-mounts,...] [-scenarios cold,nochange,...] [-builders larder,buildkit]
//	      [-runs 5] [-cold-runs 3] [-latency 25ms]
//	bench -cost [-steps npm-ci,go-build,...] [-runs 5]
//
// A workload is a directory below workloads/ with a Dockerfile; a scenario is what happens to it between two builds. Those of go and
// of node-mounts, which is node with a cache mount for npm, have cache mounts. apt and order, which is node with system packages and
// a Dockerfile of its own, copy everything before they do anything, so that a builder has to find out itself what a step needs.
// Builders take turns inside each repetition (A B A B), so that a slow minute of the machine or the network hits
// both. The registry runs in this process, on loopback, and counts. A new builder is one type with the methods
// of Builder and a line in newBuilder.
//
// # Scenarios
//
// Builds on one machine, without a remote cache:
//
//   - cold: no local state, and the repository forgotten, so that the push sends everything.
//   - nochange, oneline, onedep: local state of the build before; nothing, a source line or a dependency changed. What changes of
//     order is the lock file alone.
//   - readme: of order, the same with a line more in the README, which no step reads.
//
// Builds with a remote cache, which all of them read and write, as CI jobs do (larder: --cache; BuildKit:
// --import-cache and --export-cache with type=registry,mode=max), in repositories of the builder's own that the
// scenarios above do not use:
//
//   - cold-cache: no local state, nothing in the repositories: the first build ever.
//   - fresh: the local state removed, the repositories kept, nothing changed. BuildKit's daemon starts on an
//     empty directory inside the measurement.
//   - fresh-oneline, fresh-readme: the same with one source line changed, or a line more in the README of order.
//
// More such builds, of workloads with cache mounts, fresh-onedep of order as well:
//
//   - base-oneline: as fresh-oneline, but the machine has the base images' layers, unpacked by a build of something else on them
//     that knew no remote cache: no record, no layer of a step, no cache mount is there. The builder runs before the measurement.
//   - fresh-onedep: as fresh-oneline with a dependency changed. RUN steps get at package registries through a proxy that counts.
//   - run, fresh-run, base-run: larder run makes the workload's tests once more, in a series of its own: on the machine where they
//     ran before, on a new one, and on a new one with the base images.
//
// What a first build leaves in the repositories is kept once per workload and builder (the last one of cold-cache, or
// one that is not measured), and brought back before each run on a new machine: none finds what the run before it pushed.
// Each such run has an edit of its own, which is taken back after it.
//
// With -latency, the fresh scenarios but fresh-onedep are measured a second time with that much added to each round trip between
// builders and registry, the set-up of connections included (testregistry.Proxy). Bandwidth stays that of loopback, and
// what steps themselves download is not delayed. fresh-oneline and fresh-run, which take long, are measured once that way. The
// address of the registry is the same in all scenarios.
//
// # Results
//
// The file that -out names holds a list of rows, one for each builder in each scenario of each workload. A row replaces
// the earlier one of the same place, others stay.
//
//	workload, scenario, builder
//	latency_ms            added to each round trip with the registry; 0 for none
//	seconds               what each run took, in the order of the runs
//	median_s              their median
//	ratio                 median_s divided by that of -baseline in the same place; null where it was not measured
//	warm_ratio            median_s divided by that of a machine that kept everything: -baseline's in oneline (for fresh-oneline and
//	                      base-oneline) or onedep (for fresh-onedep), the builder's own in run (for fresh-run and base-run); null
//	                      in other scenarios, with latency, and where that was not measured
//	peak_rss_bytes        highest resident memory of any run: larder's process, BuildKit's daemon
//	registry_down_bytes   median over the runs of the bytes in the bodies of the registry's answers
//	registry_up_bytes     the same for request bodies
//	requests              median of the number of requests that reached the registry
//	packages_down_bytes   median of what package registries sent: the bytes of encrypted connections, the bodies of other answers;
//	                      null where it was not counted
//	ran                   the RUN steps that the builder was not spared in the last run; null where that was not yet noted
//	cache_mounts          the cache mounts' part of it; null without a remote cache, and for a builder that leaves them on the machine
//	  restore_s, save_s          median of the seconds in which it said to restore some, or to save some; other work goes on meanwhile
//	  restore_bytes, save_bytes  median of the bytes of packs and segments that it got from the registry and sent there
//	measured              when the last run had ended
//
// The file beside it, with .machine.json, says where the newest rows were measured.
//
// # The cost of observation
//
// With -cost, larder alone builds Dockerfiles whose last RUN step is given an observed layer, with --observe off, auto and copy in
// turn, each with a local root of its own. A first build, which is not measured, leaves the base image, what comes before the step, and
// with --observe off the layer written out as well: a build that has to write it out first would take longer. Then the step runs again
// and again, by a build argument that no one has seen. Its time is that of its line in larder's events: from before anything is mounted
// for it until its result is kept. Nothing that is measured uses the network.
//
//   - npm-ci: npm ci of what the workload node requires, from npm's cache in a layer below.
//   - go-build: the workload go with its modules vendored, without a build cache.
//   - apt-get: the packages of the workload apt, from apt's cache in a layer below.
//   - configure: what autoconf makes of some 430 probes like those of coreutils and its portability library (not theirs, whose sources
//     are not to be had everywhere), in an observed directory.
//   - bundle: esbuild makes one file of 20,000 modules, all in the observed layer. There is no faster bundler, hence none that suffers
//     more from slower files.
//
// The file that -cost-out names holds a list of rows, one for each way to observe a step on a version of the kernel:
//
//	step, observe
//	observed_files        how many files the observed layer has
//	seconds, median_s     what the step took in each run, and their median
//	ratio                 median_s divided by that of --observe off on the same kernel; null where it was not measured
//	bound                 what the ratio may be
//	build_median_s, build_ratio  the same of whole builds, from the start of larder's process to its end
//	cpu_median_s, cpu_ratio      the same of the seconds for which whole builds kept a CPU busy, with what they ran
//	machine               where and when
package main
