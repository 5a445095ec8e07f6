package main

import (
	"archive/tar"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Two bases name the same users and number them differently.
const (
	plainPasswd = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\napp:x:1000:1000::/home/app:/bin/sh\nwww:x:33:33::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n"
	plainGroup  = "root:x:0:\ndaemon:x:1:\napp:x:1000:\nwww:x:33:\nstaff:x:50:app\nextra:x:77:app,www\nnogroup:x:65534:\n"
	oddPasswd   = "root:x:0:0:root:/root:/bin/sh\napp:x:2000:2001::/home/app:/bin/sh\nwww:x:1033:1044::/:/bin/false\n123:x:4123:4124::/:/bin/false\n"
	oddGroup    = "root:x:0:\napp:x:2001:\nwww:x:1044:\nstaff:x:5050:app\nextra:x:5077:app\n"
)

// applets are the commands that cases use.
var applets = strings.Fields(`ash awk base64 basename cat chgrp chmod chown cmp cp cut date dd dirname du echo egrep env
	expr false find fold grep head hostname id ln ls md5sum mkdir mkfifo mknod mktemp mount mv nc nproc od printenv printf pwd
	readlink realpath rm rmdir sed seq sh sha256sum sleep sort stat sync tail tar tee test touch tr true truncate umount
	uname uniq unlink wc which whoami xargs`)

// addBases stores every base image, busybox too unless it is there already.
func (r *registry) addBases(busybox string) error {
	for _, b := range []struct {
		name string
		add  func(busybox string) (ocispecs.Descriptor, error)
	}{
		{"plain", r.addPlain}, {"odd", r.addOdd}, {"rich", r.addRich}, {"onbuild", r.addOnBuild}, {"multi", r.addMulti}, {"files", r.addFiles},
		{"implied", r.addImplied},
	} {
		d, err := b.add(busybox)
		if err != nil {
			return fmt.Errorf("base image %s: %w", b.name, err)
		}
		r.tag(b.name, d)
	}
	if _, ok := r.manifests["busybox/latest"]; !ok {
		r.tag("busybox", r.manifests["plain/latest"])
	}
	return nil
}

// findBusybox returns the bytes of a static busybox.
func findBusybox() (string, error) {
	path, err := exec.LookPath("busybox")
	if err == nil {
		var f *elf.File
		if f, err = elf.Open(path); err == nil {
			defer f.Close()
			var libs []string
			if libs, err = f.ImportedLibraries(); err == nil && len(libs) > 0 {
				err = fmt.Errorf("%s is linked to %s", path, libs[0])
			}
		}
	}
	if err != nil {
		return "", fmt.Errorf("a static busybox is needed for base images (on Debian: apt-get install busybox-static): %w", err)
	}
	data, err := os.ReadFile(path)
	return string(data), err
}

func plainConfig(c ocispecs.ImageConfig) func(ocispecs.RootFS, []ocispecs.History) any {
	return func(rootfs ocispecs.RootFS, history []ocispecs.History) any {
		return ocispecs.Image{Created: &baseTime, Platform: platform(), Config: c, RootFS: rootfs, History: history}
	}
}

func defaultConfig() ocispecs.ImageConfig {
	return ocispecs.ImageConfig{Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin"}, Cmd: []string{"sh"}}
}

// skeleton is the root of a small system whose programs lie in bin.
func skeleton(busybox, bin, passwd, group string) *tarLayer {
	l := newTarLayer()
	for _, d := range []string{"etc", "home", "usr", "usr/bin", "usr/local", "usr/local/bin", "var", "var/lib", "var/log"} {
		l.dir(d, 0o755)
	}
	l.dir("root", 0o700).dir("tmp", 0o1777).dir("var/tmp", 0o1777)
	l.file("etc/passwd", 0o644, passwd).file("etc/group", 0o644, group).file("etc/os-release", 0o644, "ID=larder\n")
	if bin != "usr/bin" {
		l.dir(bin, 0o755)
	}
	l.file(bin+"/busybox", 0o755, busybox)
	for _, a := range applets {
		l.link(bin+"/"+a, "busybox")
	}
	return l
}

// addPlain makes a small system without surprises, with users of its own.
func (r *registry) addPlain(busybox string) (ocispecs.Descriptor, error) {
	l := skeleton(busybox, "bin", plainPasswd, plainGroup)
	l.add(tar.Header{Typeflag: tar.TypeDir, Name: "home/app/", Mode: 0o750, Uid: 1000, Gid: 1000}, "")
	return r.image(ociForm, []*tarLayer{l}, plainConfig(defaultConfig()))
}

// addOdd makes a base whose layers hold what is rare: /bin is a symbolic link, names are hard links of each other, files
// carry attributes, and upper layers hide and replace what lower ones hold. It is stored as Docker's own image format.
func (r *registry) addOdd(busybox string) (ocispecs.Descriptor, error) {
	first := skeleton(busybox, "usr/bin", oddPasswd, oddGroup).link("bin", "usr/bin")
	first.link("abs", "/usr/local").link("loop", "loop").link("dangling", "nowhere/to/be/found").link("up", "../../../etc")
	first.dir("data", 0o2775).dir("data/keep", 0o700).dir("data/gone", 0o755).file("data/gone/f", 0o644, "gone\n")
	first.dir("data/opaque", 0o755).file("data/opaque/low", 0o644, "low\n").dir("data/opaque/sub", 0o755)
	first.file("data/opaque/sub/low", 0o644, "low\n").file("data/file", 0o644, "a file below\n")
	first.dir("data/dir", 0o755).file("data/dir/f", 0o644, "in a directory\n").link("data/link", "file").link("data/lfile", "dir")

	second := newTarLayer().dir("data", 0o2775)
	second.file("data/one", 0o640, "three names\n")
	second.add(tar.Header{Typeflag: tar.TypeLink, Name: "data/two", Linkname: "data/one", Mode: 0o640}, "")
	second.dir("data/keep", 0o700)
	second.add(tar.Header{Typeflag: tar.TypeLink, Name: "data/keep/three", Linkname: "data/one", Mode: 0o640}, "")
	second.add(tar.Header{Typeflag: tar.TypeReg, Name: "data/attr", Mode: 0o644,
		PAXRecords: map[string]string{paxXattr + "user.note": "kept", paxXattr + "user.empty": ""}}, "attributes\n")
	second.add(tar.Header{Typeflag: tar.TypeReg, Name: "data/cap", Mode: 0o755, PAXRecords: map[string]string{
		paxXattr + "security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}}, "cap\n")
	second.add(tar.Header{Typeflag: tar.TypeReg, Name: "data/setuid", Mode: 0o6755, Uid: 2000, Gid: 2001}, "s\n")
	second.add(tar.Header{Typeflag: tar.TypeChar, Name: "data/null", Mode: 0o666, Devmajor: 1, Devminor: 3}, "")
	second.add(tar.Header{Typeflag: tar.TypeBlock, Name: "blk", Mode: 0o660, Gid: 6, Devmajor: 7, Devminor: 300}, "")
	second.add(tar.Header{Typeflag: tar.TypeFifo, Name: "data/fifo", Mode: 0o600}, "")
	second.add(tar.Header{Typeflag: tar.TypeDir, Name: "home/app/", Mode: 0o711, Uid: 2000, Gid: 2001}, "")

	third := newTarLayer().dir("data", 0o2775).file("data/.wh.gone", 0, "")
	third.dir("data/opaque", 0o711).file("data/opaque/"+opaqueMarker, 0, "").file("data/opaque/high", 0o600, "high\n")
	third.dir("data/file", 0o750).file("data/file/now", 0o644, "a directory now\n")
	third.file("data/.wh.dir", 0, "").file("data/dir", 0o604, "a file now\n")

	fourth := newTarLayer().dir("data", 0o2775).dir("data/gone", 0o700).file("data/gone/back", 0o644, "back\n")
	return r.image(dockerForm, []*tarLayer{first, second, third, fourth}, plainConfig(defaultConfig()))
}

// addRich makes a base whose config has every field, so that what is inherited and what is reset can be told.
func (r *registry) addRich(busybox string) (ocispecs.Descriptor, error) {
	l := skeleton(busybox, "bin", plainPasswd, plainGroup)
	l.add(tar.Header{Typeflag: tar.TypeDir, Name: "home/app/", Mode: 0o755, Uid: 1000, Gid: 1000}, "")
	c := defaultConfig()
	c.Env = append(c.Env, "BASE=rich", "EMPTY=", "QUOTED=a \"b\" $c")
	c.User, c.WorkingDir, c.StopSignal = "app:staff", "/home/app", "SIGUSR1"
	c.Entrypoint, c.Cmd = []string{"/bin/echo", "entry"}, []string{"base", "command"}
	c.ExposedPorts = map[string]struct{}{"80/tcp": {}, "53/udp": {}}
	c.Volumes = map[string]struct{}{"/var/lib/data": {}}
	c.Labels = map[string]string{"org.example.base": "rich", "keep": "me"}
	return r.image(zstdForm, []*tarLayer{l}, func(rootfs ocispecs.RootFS, history []ocispecs.History) any {
		history = append(history, ocispecs.History{Created: &baseTime, CreatedBy: "CMD", Comment: "by hand", EmptyLayer: true})
		return dockerImage{
			Image:  ocispecs.Image{Created: &baseTime, Author: "somebody", Platform: platform(), RootFS: rootfs, History: history},
			Config: dockerConfig{ImageConfig: c, Healthcheck: map[string]any{"Test": []string{"CMD", "true"}, "Interval": 5 * time.Second}},
		}
	})
}

// dockerImage is an image config with the fields that Docker adds to OCI's.
type dockerImage struct {
	ocispecs.Image
	Config dockerConfig `json:"config"`
}

type dockerConfig struct {
	ocispecs.ImageConfig
	Healthcheck map[string]any `json:",omitempty"`
	OnBuild     []string       `json:",omitempty"`
	Shell       []string       `json:",omitempty"`
}

// addOnBuild makes a base with triggers and a shell of its own.
func (r *registry) addOnBuild(busybox string) (ocispecs.Descriptor, error) {
	l := skeleton(busybox, "bin", plainPasswd, plainGroup)
	return r.image(dockerForm, []*tarLayer{l}, func(rootfs ocispecs.RootFS, history []ocispecs.History) any {
		return dockerImage{
			Image: ocispecs.Image{Created: &baseTime, Platform: platform(), RootFS: rootfs, History: history},
			Config: dockerConfig{
				ImageConfig: defaultConfig(),
				OnBuild:     []string{"ARG FROM_TRIGGER=default", "COPY app/ /srv/app/", "RUN echo $FROM_TRIGGER $0 > /srv/built", "ENV TRIGGERED=yes"},
				Shell:       []string{"/bin/sh", "-eu", "-c"},
			},
		}
	})
}

// addMulti makes an index of two platforms that hold different files and nothing to run.
func (r *registry) addMulti(string) (ocispecs.Descriptor, error) {
	index := ocispecs.Index{MediaType: ocispecs.MediaTypeImageIndex}
	index.SchemaVersion = 2
	for _, arch := range []string{"arm64", "amd64", "s390x"} {
		l := newTarLayer().dir("etc", 0o755).file("etc/arch", 0o644, arch+"\n")
		p := ocispecs.Platform{OS: "linux", Architecture: arch}
		if arch == "arm64" {
			p.Variant = "v8"
		}
		d, err := r.image(ociForm, []*tarLayer{l}, func(rootfs ocispecs.RootFS, history []ocispecs.History) any {
			return ocispecs.Image{Created: &baseTime, Platform: p, RootFS: rootfs, History: history,
				Config: ocispecs.ImageConfig{Env: []string{"ARCH=" + arch}}}
		})
		if err != nil {
			return d, err
		}
		r.manifests["multi/"+d.Digest.String()] = d
		d.Platform = &p
		index.Manifests = append(index.Manifests, d)
	}
	if len(index.Manifests) == 0 {
		return ocispecs.Descriptor{}, errors.New("no platform")
	}
	return r.addJSON(ocispecs.MediaTypeImageIndex, index)
}

// addFiles makes an image without a system, for COPY --from: a source with owners, modes, attributes and links.
func (r *registry) addFiles(string) (ocispecs.Descriptor, error) {
	l := newTarLayer().dir("etc", 0o755).file("etc/passwd", 0o644, "app:x:3000:3000::/:/bin/false\n").file("etc/group", 0o644, "app:x:3000:\n")
	l.add(tar.Header{Typeflag: tar.TypeDir, Name: "tree/", Mode: 0o2750, Uid: 11, Gid: 12}, "")
	l.add(tar.Header{Typeflag: tar.TypeReg, Name: "tree/tool", Mode: 0o4711, Uid: 13, Gid: 14}, "tool\n")
	l.add(tar.Header{Typeflag: tar.TypeLink, Name: "tree/tool2", Linkname: "tree/tool"}, "")
	l.add(tar.Header{Typeflag: tar.TypeReg, Name: "tree/attr", Mode: 0o644,
		PAXRecords: map[string]string{paxXattr + "user.color": "green"}}, "x\n")
	l.link("tree/abs", "/tree/tool").link("tree/rel", "tool").link("tree/sub", "real").dir("tree/real", 0o1777)
	l.file("tree/real/deep", 0o600, "deep\n").file("tree/.hidden", 0o644, "h\n")
	l.add(tar.Header{Typeflag: tar.TypeChar, Name: "tree/zero", Mode: 0o666, Devmajor: 1, Devminor: 5}, "")
	l.add(tar.Header{Typeflag: tar.TypeFifo, Name: "tree/pipe", Mode: 0o640}, "")
	return r.image(ociForm, []*tarLayer{l}, plainConfig(ocispecs.ImageConfig{}))
}

// addImplied makes a base whose upper layer has entries without their parents: one that a lower layer has, one that is new.
func (r *registry) addImplied(busybox string) (ocispecs.Descriptor, error) {
	lower := skeleton(busybox, "bin", plainPasswd, plainGroup)
	lower.add(tar.Header{Typeflag: tar.TypeDir, Name: "own/", Mode: 0o2750, Uid: 5, Gid: 6}, "").dir("own/sticky", 0o1777)
	upper := newTarLayer().file("own/sticky/f", 0o644, "f\n").file("new/deep/f", 0o644, "f\n").file("own/.wh.nothing", 0, "")
	return r.image(ociForm, []*tarLayer{lower, upper}, plainConfig(defaultConfig()))
}
