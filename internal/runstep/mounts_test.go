package runstep

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/fault"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

func TestMounts(t *testing.T) {
	for _, rt := range []string{"runc", "crun"} {
		t.Run(rt, func(t *testing.T) {
			p := newPlace(t, Options{Runtime: rt})
			base := p.busybox()
			data := layer.Stack(
				p.imageLayer(file{name: "d/", mode: 0o755, dir: true}, file{name: "d/f", body: "old\n", mode: 0o644},
					file{name: "link", link: "/d"}, file{name: "out", link: "../../../../etc"}, file{name: "etc/passwd", body: "mine\n", mode: 0o644}),
				p.imageLayer(file{name: "d/g", body: "g\n", mode: 0o644}))
			for _, c := range []struct {
				name, script, want, err string
				mount                   *pb.Mount
				cwd                     string
			}{
				{name: "bind", script: "cat /m/d/f /m/d/g; ! touch /m/x 2>/dev/null", want: "old\ng\n",
					mount: &pb.Mount{Input: 1, Output: -1, Readonly: true}},
				{name: "bind of one layer", script: "ls /m/bin/sh", want: "/m/bin/sh\n", mount: &pb.Mount{Input: 0, Output: -1, Readonly: true}},
				{name: "bind read-write", script: "echo x > /m/x; rm /m/d/f; ls /m/d", want: "g\n", mount: &pb.Mount{Input: 1, Output: -1}},
				{name: "written to a bind is gone", script: "ls -d /m/x /m/d/f 2>&1", want: "ls: /m/x: No such file or directory\n/m/d/f\n", err: "exit code: 1",
					mount: &pb.Mount{Input: 1, Output: -1, Readonly: true}},
				{name: "bind of a directory", script: "cat /m/f", want: "old\n", mount: &pb.Mount{Input: 1, Output: -1, Readonly: true, Selector: "/d"}},
				{name: "bind of a file", script: "cat /m", want: "old\n", mount: &pb.Mount{Input: 1, Output: -1, Readonly: true, Selector: "d/f"}},
				{name: "bind through a link", script: "cat /m", want: "g\n", mount: &pb.Mount{Input: 1, Output: -1, Readonly: true, Selector: "/link/g"}},
				{name: "bind through a link out", script: "cat /m", want: "mine\n", mount: &pb.Mount{Input: 1, Output: -1, Readonly: true, Selector: "/out/passwd"}},
				{name: "bind of what is missing", mount: &pb.Mount{Input: 1, Output: -1, Readonly: true, Selector: "/d/none"}, err: "/d/none: not found"},
				{name: "bind of a directory read-write", script: "echo x > /m/x; ls /m", want: "f\ng\nx\n", mount: &pb.Mount{Input: 1, Output: -1, Selector: "/d"}},
				{name: "empty bind", script: "echo x > /m/x; ls -l /m | wc -l", want: "2\n", mount: &pb.Mount{Input: -1, Output: -1}},
				{name: "relative", script: "ls /w/sub/m/d", cwd: "/w/sub", want: "f\ng\n", mount: &pb.Mount{Dest: "m", Input: 1, Output: -1, Readonly: true}},
				{name: "tmpfs", script: "grep -c ' /m tmpfs rw,nosuid,.*size=64k' /proc/mounts; echo x > /m/x", want: "1\n",
					mount: &pb.Mount{Input: -1, Output: -1, MountType: pb.MountType_TMPFS, TmpfsOpt: &pb.TmpfsOpt{Size: 65536}}},
				{name: "secret", script: "cat /m; echo; stat -c '%a %u:%g' /m; ! echo x 2>/dev/null > /m", want: "s3cret\n440 3:4\n",
					mount: &pb.Mount{Input: -1, Output: -1, MountType: pb.MountType_SECRET, SecretOpt: &pb.SecretOpt{ID: "token", Uid: 3, Gid: 4, Mode: 0o440}}},
				{name: "optional secret", script: "test ! -e /m", mount: &pb.Mount{Input: -1, Output: -1, MountType: pb.MountType_SECRET, SecretOpt: &pb.SecretOpt{ID: "none", Optional: true}}},
				{name: "missing secret", mount: &pb.Mount{Input: -1, Output: -1, MountType: pb.MountType_SECRET, SecretOpt: &pb.SecretOpt{ID: "none"}}, err: "--secret id=none"},
				{name: "optional ssh", script: "true", mount: &pb.Mount{Input: -1, Output: -1, MountType: pb.MountType_SSH, SSHOpt: &pb.SSHOpt{ID: "default", Optional: true}}},
				{name: "ssh", mount: &pb.Mount{Input: -1, Output: -1, MountType: pb.MountType_SSH, SSHOpt: &pb.SSHOpt{ID: "default"}}, err: "SSH"},
				{name: "no such input", mount: &pb.Mount{Input: 7, Output: -1}, err: "input 7"},
				{name: "no such output", mount: &pb.Mount{Input: 1, Output: 5}, err: "output"},
				{name: "output twice", mount: &pb.Mount{Input: 1, Output: 0}, err: "output"},
			} {
				t.Run(c.name, func(t *testing.T) {
					if c.mount.Dest == "" {
						c.mount.Dest = "/m"
					}
					o := op(c.script, c.mount)
					if c.cwd != "" {
						o.Meta.Cwd = c.cwd
					}
					res, err := p.run(o, base, data)
					switch {
					case c.err == "" && err != nil:
						t.Fatalf("%v\n%s", err, &p.out)
					case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
						t.Fatalf("got %v, want %s", err, c.err)
					}
					if p.out.String() != c.want {
						t.Errorf("got %q, want %q", &p.out, c.want)
					}
					if err == nil {
						if l := listing(t, res.Outputs[0].Layers[0]); strings.Contains(l, "m 644") || strings.Contains(l, "m/") {
							t.Errorf("the mount is in the layer:\n%s", l)
						}
					}
				})
			}
		})
	}
}

// TestOutputs checks what each kind of mount with an output hands on.
func TestOutputs(t *testing.T) {
	p := newPlace(t, Options{})
	base := p.busybox()
	data := layer.Stack(p.imageLayer(file{name: "d/f", body: "f", mode: 0o644}))
	res := p.mustRun(op("echo 1 > /x; echo 2 > /rw/x; echo 3 > /part/x; echo 4 > /new/x",
		&pb.Mount{Dest: "/rw", Input: 1, Output: 1},
		&pb.Mount{Dest: "/ro", Input: 1, Output: 2, Readonly: true},
		&pb.Mount{Dest: "/part", Input: 1, Output: 3, Selector: "/d"},
		&pb.Mount{Dest: "/new", Input: -1, Output: 4},
		&pb.Mount{Dest: "/cache", Input: 1, Output: 5, MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: "x"}},
	), base, data)
	want := []struct {
		base  int
		layer string
	}{
		{0, "x 644 0:0\n"}, {1, "x 644 0:0\n"}, {1, ""}, {1, "d 755 0:0 dir\nd/x 644 0:0\n"}, {-1, "x 644 0:0\n"}, {1, ""},
	}
	if len(res.Outputs) != len(want) {
		t.Fatalf("%d outputs", len(res.Outputs))
	}
	for i, w := range want {
		o := res.Outputs[i]
		if o.Base != w.base || len(o.Layers) != min(len(w.layer), 1) {
			t.Errorf("output %d: got %+v", i, o)
			continue
		}
		if len(o.Layers) == 0 {
			if o.State != data {
				t.Errorf("output %d is not the input", i)
			}
			continue
		}
		if o.State.Top() != o.Layers[0] {
			t.Errorf("output %d: the state does not end in the layer", i)
		}
		if got := listing(t, o.Layers[0]); !strings.HasSuffix(got, w.layer) {
			t.Errorf("output %d: got\n%swant\n%s", i, got, w.layer)
		}
	}
	// A read-only root has an output all the same, with nothing in it but mount points.
	ro := op("! echo x > /x")
	ro.Mounts[0].Readonly = true
	if o := p.mustRun(ro, base).Outputs[0]; len(o.Layers) != 1 || strings.Contains(listing(t, o.Layers[0]), "x ") {
		t.Errorf("got %+v", o)
	}
}

func TestScratch(t *testing.T) {
	p := newPlace(t, Options{})
	o := op("")
	o.Meta.Args = []string{"/b/bin/sh", "-c", "echo x > /x"}
	o.Mounts[0].Input = -1
	o.Mounts = append(o.Mounts, &pb.Mount{Dest: "/b", Input: 0, Output: -1, Readonly: true})
	out := p.mustRun(o, p.busybox()).Outputs[0]
	if out.Base != -1 || out.State.Depth() != 1 || !strings.Contains(listing(t, out.Layers[0]), "x 644") {
		t.Errorf("got %+v", out)
	}
}

func TestCacheMounts(t *testing.T) {
	p := newPlace(t, Options{})
	base := p.busybox()
	mount := func(dest, id string, edit ...func(*pb.Mount)) *pb.Mount {
		m := &pb.Mount{Dest: dest, Input: -1, Output: -1, MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: id}}
		for _, e := range edit {
			e(m)
		}
		return m
	}
	say := func(want, script string, mounts ...*pb.Mount) {
		t.Helper()
		p.mustRun(op(script, mounts...), base, layer.Stack(p.imageLayer(file{name: "from/f", body: "from\n", mode: 0o600})))
		if p.out.String() != want {
			t.Errorf("%s: got %q, want %q", script, &p.out, want)
		}
	}
	say("", "echo a > /c/a", mount("/c", "one"))
	say("a\n", "cat /other/a", mount("/other", "one"))
	say("", "ls /c", mount("/c", "two"))
	say("b\n", "echo b > /c/b; cat /d/b", mount("/c", "one"), mount("/d", "one"))
	locked := func(m *pb.Mount) { m.CacheOpt.Sharing = pb.CacheSharingOpt_LOCKED }
	say("a\n", "cat /c/a /d/none 2>/dev/null || true", mount("/c", "one", locked), mount("/d", "one", locked)) // the same mount twice in one step does not wait for itself
	say("", "! touch /c/x 2>/dev/null", mount("/c", "one", func(m *pb.Mount) { m.Readonly = true }))
	from := func(m *pb.Mount) { m.Input, m.Selector = 1, "/from" }
	say("from\n600\n", "cat /c/f; stat -c %a /c/f; echo new > /c/f", mount("/c", "one", from))
	say("new\n", "cat /c/f", mount("/c", "one", from))
	say("a\n", "cat /c/a", mount("/c", "one"))
}

// TestCacheMountMode is what the frontend makes of --mount=type=cache,uid=,gid=,mode=: a directory in a scratch state.
func TestCacheMountMode(t *testing.T) {
	p := newPlace(t, Options{})
	dir, err := tree.NewDir(tree.Meta{Mode: 0o1770, UID: 7, GID: 8}, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	root, err := tree.NewDir(tree.Meta{Mode: 0o755}, false, []tree.Entry{{Name: "cache", Node: dir}})
	if err != nil {
		t.Fatal(err)
	}
	id, err := root.Identity()
	if err != nil {
		t.Fatal(err)
	}
	made := layer.Stack(layer.New(id, false, root, layer.Literal(nil)))
	o := op("stat -c '%a %u:%g' /c; id -u; touch /c/x", &pb.Mount{
		Dest: "/c", Input: 1, Selector: "/cache", Output: -1, MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: "m"},
	})
	o.Meta.User = "me"
	p.mustRun(o, p.busybox(), made)
	if p.out.String() != "1770 7:8\n7\n" {
		t.Errorf("got %q", &p.out)
	}
}

func TestEnvironment(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca:b,c.crt")
	if err := os.WriteFile(ca, []byte("certificates\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := newPlace(t, Options{HostCA: ca})
	o := op("env; cat $SSL_CERT_FILE; cat /dev/.larder/ca.crt")
	o.Meta.Env = []string{"A=b", "CURL_CA_BUNDLE=/own"}
	o.Meta.ProxyEnv = &pb.ProxyEnv{HttpProxy: "http://proxy", NoProxy: "local"}
	o.Secretenv = []*pb.SecretEnv{{ID: "token", Name: "TOKEN"}, {ID: "none", Name: "NONE", Optional: true}}
	res := p.mustRun(o, p.busybox())
	for _, want := range []string{
		"A=b", "CURL_CA_BUNDLE=/own", "SSL_CERT_FILE=/dev/.larder/ca.crt", "NODE_EXTRA_CA_CERTS=/dev/.larder/ca.crt",
		"HTTP_PROXY=http://proxy", "http_proxy=http://proxy", "no_proxy=local", "TOKEN=s3cret", "certificates\ncertificates",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	} {
		if !strings.Contains("\n"+p.out.String(), "\n"+want+"\n") {
			t.Errorf("%s is not in\n%s", want, &p.out)
		}
	}
	if l := listing(t, res.Outputs[0].Layers[0]); strings.Contains(l, "larder") {
		t.Errorf("got %s", l)
	}
	o.Secretenv = []*pb.SecretEnv{{ID: "none", Name: "NONE"}}
	if _, err := p.run(o, p.busybox()); !errors.Is(err, ErrNoSecret) {
		t.Errorf("got %v", err)
	}
}

func TestAllowed(t *testing.T) {
	p := newPlace(t, Options{})
	all := newPlace(t, Options{AllowInsecure: true, AllowHostNetwork: true})
	for name, edit := range map[string]func(*pb.ExecOp){
		"security.insecure": func(o *pb.ExecOp) { o.Security = pb.SecurityMode_INSECURE },
		"network.host":      func(o *pb.ExecOp) { o.Network = pb.NetMode_HOST },
	} {
		o := op("true")
		edit(o)
		_, err := p.run(o, p.busybox())
		if err == nil || fault.Of(err) != fault.Usage || !strings.Contains(err.Error(), "--allow "+name) {
			t.Errorf("%s: got %v", name, err)
		}
		all.mustRun(o, all.busybox())
	}
	o := op("true")
	o.CdiDevices = []*pb.CDIDevice{{Name: "gpu"}}
	if _, err := p.run(o, p.busybox()); err == nil {
		t.Error("a device was not refused")
	}
}

// TestInsecure shows that the mode does what it says, and that its absence does.
func TestInsecure(t *testing.T) {
	p := newPlace(t, Options{AllowInsecure: true})
	script := "mount -t tmpfs none /tmp 2>/dev/null && echo may || echo may not"
	o := op(script)
	p.mustRun(o, p.busybox())
	if p.out.String() != "may not\n" {
		t.Errorf("sandbox: got %q", &p.out)
	}
	o.Security = pb.SecurityMode_INSECURE
	p.mustRun(o, p.busybox())
	if p.out.String() != "may\n" {
		t.Errorf("insecure: got %q", &p.out)
	}
}

// TestIdentityIsContent: identities do not depend on where and when a step ran.
func TestIdentityIsContent(t *testing.T) {
	var ids []key.Digest
	for range 2 {
		p := newPlace(t, Options{})
		ids = append(ids, p.mustRun(op("mkdir -p /a/b; echo x > /a/b/c; ln /a/b/c /a/d; ln -s x /a/l; chmod 6755 /a/b/c; rm /usr/old/file"), p.busybox()).Outputs[0].Layers[0].Identity)
	}
	if ids[0] != ids[1] {
		t.Errorf("got %s", ids)
	}
}
