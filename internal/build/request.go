package build

import (
	"io"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Request is one build as the user asked for it.
type Request struct {
	Context string // directory, absolute
	// Dockerfile is the path of the Dockerfile; empty means Dockerfile in Context. DockerfileText, where it is set, is
	// the Dockerfile itself.
	Dockerfile     string
	DockerfileText []byte
	// Contexts are named contexts: a directory, docker-image://REF, oci-layout://DIR[:TAG][@DIGEST].
	Contexts map[string]string

	Target      string
	Args        map[string]string // values of ARGs
	Labels      map[string]string
	Annotations []string            // as --annotation has them
	Platforms   []ocispecs.Platform // none: this machine's
	Tags        []string            // names for the image
	Outputs     []map[string]string // one per --output: its CSV fields, "type" among them
	Stdout      io.Writer           // where an output with dest=- goes; nil refuses those

	NoCache       bool
	NoCacheStages []string
	Pull          bool
	Call          string // "build" or a subrequest: "check", "outline", "targets"; ",format=json" may follow

	Network      string // default, host, none
	AddHosts     []string
	Ulimits      []string
	ShmSize      int64 // bytes, 0 for the runtime's default
	CgroupParent string
	Insecure     bool // steps may ask for all privileges
	HostNetwork  bool // steps may ask for the host's network

	Secrets map[string]Secret
	Cache   Cache
	Mounts  Mounts
	// AutoMounts gives RUN steps the cache mounts that the package managers in their commands can use.
	AutoMounts bool
	// Epoch is SOURCE_DATE_EPOCH; nil without one.
	Epoch *time.Time
}

// Mounts says what remote caches do for cache mounts.
type Mounts struct {
	Restore, Save bool
	Exclude       []string // patterns of files that are never saved
	Keep          int      // builds after which a file goes that none of them used; 0 for never
	Size          int64    // bytes that a mount may have; 0 for any number
}

// Secret says where a secret's value is.
type Secret struct {
	File string // path, or
	Env  string // name of a variable
}

// options gives the frontend's options in the words of BuildKit's Dockerfile frontend.
func (r *Request) options() map[string]string {
	o := map[string]string{}
	for k, v := range r.Args {
		o["build-arg:"+k] = v
	}
	for k, v := range r.Labels {
		o["label:"+k] = v
	}
	if r.Target != "" {
		o["target"] = r.Target
	}
	if len(r.Platforms) > 0 {
		list := make([]string, len(r.Platforms))
		for i, p := range r.Platforms {
			list[i] = platforms.FormatAll(p)
		}
		o["platform"] = strings.Join(list, ",")
	}
	switch {
	case r.NoCache:
		o["no-cache"] = ""
	case len(r.NoCacheStages) > 0:
		o["no-cache"] = strings.Join(r.NoCacheStages, ",")
	}
	if r.Pull {
		o["image-resolve-mode"] = "pull"
	}
	if r.Network != "" && r.Network != "default" {
		o["force-network-mode"] = r.Network
	}
	if len(r.AddHosts) > 0 {
		o["add-hosts"] = strings.Join(r.AddHosts, ",")
	}
	if len(r.Ulimits) > 0 {
		o["ulimit"] = strings.Join(r.Ulimits, ",")
	}
	if r.ShmSize > 0 {
		o["shm-size"] = strconv.FormatInt(r.ShmSize, 10)
	}
	if r.CgroupParent != "" {
		o["cgroup-parent"] = r.CgroupParent
	}
	if r.Epoch != nil {
		if _, ok := r.Args["SOURCE_DATE_EPOCH"]; !ok {
			o["build-arg:SOURCE_DATE_EPOCH"] = strconv.FormatInt(r.Epoch.Unix(), 10)
		}
	}
	for name, v := range r.Contexts {
		o["context:"+name] = v
		if !strings.Contains(v, "://") {
			o["context:"+name] = "local:" + contextName(name)
		}
	}
	return o
}

// locals gives the directories that the frontend knows by name.
func (r *Request) locals() map[string]string {
	dirs := map[string]string{"context": r.Context}
	for name, v := range maps.All(r.Contexts) {
		if !strings.Contains(v, "://") {
			dirs[contextName(name)] = v
		}
	}
	return dirs
}

// contextName is the frontend's name of a named context that is a directory; two names are the frontend's own.
func contextName(name string) string {
	if name == "context" || name == "dockerfile" {
		return "_" + name
	}
	return name
}
