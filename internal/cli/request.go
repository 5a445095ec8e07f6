package cli

import (
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/docker/go-units"
	"golang.org/x/term"

	"larder/internal/build"
	"larder/internal/export"
	"larder/internal/fault"
)

// maxDockerfile bounds a Dockerfile that is read from standard input, in bytes.
const maxDockerfile = 16 << 20

// request turns the flags into what package build takes.
func (f *buildFlags) request(dir string, in io.Reader, out io.Writer) (*build.Request, error) {
	r := &build.Request{
		Context: dir, Dockerfile: f.file, Target: f.target, Annotations: f.annotations, Tags: f.tags,
		NoCache: f.noCache, NoCacheStages: f.noCacheFilter, Pull: f.pull,
		Call: f.call, CgroupParent: f.cgroupParent, Network: f.network,
	}
	if f.check {
		r.Call = "check"
	}
	if tty, ok := out.(*os.File); !ok || !term.IsTerminal(int(tty.Fd())) {
		r.Stdout = out
	}
	if f.file == "-" {
		b, err := io.ReadAll(io.LimitReader(in, maxDockerfile+1))
		if err != nil {
			return nil, fmt.Errorf("read Dockerfile from standard input: %w", err)
		}
		if len(b) > maxDockerfile {
			return nil, fault.Errorf(fault.Usage, "the Dockerfile on standard input has more than %s", units.BytesSize(maxDockerfile))
		}
		r.Dockerfile, r.DockerfileText = "", b
	}
	for _, step := range []func(*build.Request) error{f.names, f.where, f.limits, f.secretList, f.epoch, f.mounts.request} {
		if err := step(r); err != nil {
			return nil, err
		}
	}
	var err error
	r.Cache, err = f.remote.request()
	return r, err
}

// names reads the flags that give a name a value.
func (f *buildFlags) names(r *build.Request) error {
	r.Args, r.Labels, r.Contexts = map[string]string{}, map[string]string{}, map[string]string{}
	for _, a := range f.args {
		name, value, ok := strings.Cut(a, "=")
		if name == "" {
			return usage("--build-arg %s: a name is missing, NAME=VALUE is expected", a)
		}
		if !ok {
			if value, ok = os.LookupEnv(name); !ok {
				continue // as docker does: the Dockerfile's default stays
			}
		}
		r.Args[name] = value
	}
	for _, l := range f.labels {
		name, value, _ := strings.Cut(l, "=")
		if name == "" {
			return usage("--label %s: a name is missing, NAME=VALUE is expected", l)
		}
		r.Labels[name] = value
	}
	for _, c := range f.contexts {
		name, value, ok := strings.Cut(c, "=")
		if !ok || name == "" || value == "" {
			return usage("--build-context %s: NAME=VALUE is expected", c)
		}
		scheme, _, remote := strings.Cut(value, "://")
		switch {
		case remote && scheme != "docker-image" && scheme != "oci-layout":
			return usage("--build-context %s: a %s context is not possible in this version", name, scheme)
		case !remote:
			st, err := os.Stat(value)
			if err != nil {
				return fault.Errorf(fault.Usage, "--build-context %s: %w", name, err)
			}
			if !st.IsDir() {
				return usage("--build-context %s: %s is no directory", name, value)
			}
			if value, err = filepath.Abs(value); err != nil {
				return err
			}
		}
		r.Contexts[name] = value
	}
	return nil
}

// where reads the flags that say where the result goes.
func (f *buildFlags) where(r *build.Request) error {
	for _, list := range f.platforms {
		for _, p := range strings.Split(list, ",") {
			spec, err := platforms.Parse(strings.TrimSpace(p))
			if err != nil {
				return fault.Errorf(fault.Usage, "--platform: %w", err)
			}
			r.Platforms = append(r.Platforms, platforms.Normalize(spec))
		}
	}
	for _, o := range f.outputs {
		fields, err := export.ParseOutput(o)
		if err != nil {
			return fault.Errorf(fault.Usage, "--output %s: %w", o, err)
		}
		r.Outputs = append(r.Outputs, fields)
	}
	if f.push {
		r.Outputs = pushed(r.Outputs)
	}
	if f.load {
		r.Outputs = append(r.Outputs, map[string]string{"type": "docker"})
	}
	return nil
}

// pushed adds a push to the outputs: to an image output that is there, else as one of its own.
func pushed(outputs []map[string]string) []map[string]string {
	for _, o := range outputs {
		if o["type"] == "image" || o["type"] == "registry" {
			o["push"] = "true"
			return outputs
		}
	}
	return append(outputs, map[string]string{"type": "registry"})
}

// limits reads the flags about RUN steps.
func (f *buildFlags) limits(r *build.Request) error {
	switch f.network {
	case "", "default", "host", "none":
	default:
		return usage("--network %s: only default, host and none are known", f.network)
	}
	for _, h := range f.addHosts {
		at := strings.IndexAny(h, ":=") // either, and the address may have colons of its own
		name, ip := h[:max(at, 0)], h[at+1:]
		if ip == "host-gateway" {
			return usage("--add-host %s: there is no gateway, RUN steps share this machine's network; use 127.0.0.1", h)
		}
		ip = strings.Trim(ip, "[]")
		if name == "" || net.ParseIP(ip) == nil {
			return usage("--add-host %s: NAME:IP is expected", h)
		}
		r.AddHosts = append(r.AddHosts, name+"="+ip)
	}
	for _, u := range f.ulimits {
		l, err := units.ParseUlimit(u)
		if err != nil {
			return fault.Errorf(fault.Usage, "--ulimit: %w", err)
		}
		r.Ulimits = append(r.Ulimits, fmt.Sprintf("%s=%d:%d", l.Name, l.Soft, l.Hard))
	}
	if f.shmSize != "" {
		n, err := units.RAMInBytes(f.shmSize)
		if err != nil || n <= 0 {
			return usage("--shm-size %s: a size such as 128m is expected", f.shmSize)
		}
		r.ShmSize = n
	}
	r.HostNetwork = f.network == "host"
	for _, a := range f.allow {
		switch a {
		case "security.insecure":
			r.Insecure = true
		case "network.host":
			r.HostNetwork = true
		default:
			return usage("--allow %s: only network.host and security.insecure are known", a)
		}
	}
	return nil
}

// secretList reads --secret.
func (f *buildFlags) secretList(r *build.Request) error {
	r.Secrets = map[string]build.Secret{}
	for _, s := range f.secrets {
		fields, err := csv.NewReader(strings.NewReader(s)).Read()
		if err != nil {
			return usage("--secret: %v", err) // never the text itself
		}
		var id, kind, file, variable string
		for _, field := range fields {
			name, value, _ := strings.Cut(field, "=")
			switch strings.ToLower(name) {
			case "id":
				id = value
			case "type":
				kind = value
			case "src", "source":
				file = value
			case "env":
				variable = value
			default:
				return usage("--secret: %s is no field; id, src, env and type are", name)
			}
		}
		if kind != "" && kind != "file" && kind != "env" {
			return usage("--secret: type %s is not known; file and env are", kind)
		}
		if kind == "env" && variable == "" {
			file, variable = "", file
		}
		if id == "" {
			return usage("--secret: the id is missing")
		}
		if file == "" && variable == "" {
			if _, ok := os.LookupEnv(id); ok && kind != "file" {
				variable = id
			} else {
				file = id
			}
		}
		if _, ok := os.LookupEnv(variable); variable != "" && !ok {
			return usage("--secret id=%s: the variable %s is not set", id, variable)
		}
		if file != "" {
			if _, err := os.Stat(file); err != nil {
				return fault.Errorf(fault.Usage, "--secret id=%s: %w", id, err)
			}
		}
		r.Secrets[id] = build.Secret{File: file, Env: variable}
	}
	return nil
}

// epoch reads SOURCE_DATE_EPOCH: the build argument, else the variable.
func (f *buildFlags) epoch(r *build.Request) error {
	v, ok := r.Args["SOURCE_DATE_EPOCH"]
	if !ok {
		v = os.Getenv("SOURCE_DATE_EPOCH")
	}
	if v == "" {
		return nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return usage("SOURCE_DATE_EPOCH=%s: seconds since 1970 are expected", v)
	}
	t := time.Unix(n, 0).UTC()
	r.Epoch = &t
	return nil
}

func usage(format string, args ...any) error { return fault.Errorf(fault.Usage, format, args...) }
