package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	caBundle = "/etc/ssl/certs/ca-certificates.crt"
	caLocal  = "/usr/local/share/ca-certificates"
)

// host is what the images take from this machine: where packages come from and which certificates are trusted here.
// A machine behind a proxy that re-signs TLS builds with images that trust that proxy.
type host struct {
	suite     string   // Debian's code name
	mirror    string   // of the main archive
	sources   string   // a sources.list
	aptConf   string   // how the archive is reached
	bundle    []byte   // the host's CA bundle
	localCAs  []string // files below caLocal
	goroot    string
	goversion string
	goenv     []string
}

func readHost(ctx context.Context) (*host, error) {
	h := &host{}
	var err error
	if h.bundle, err = os.ReadFile(caBundle); err != nil {
		return nil, fmt.Errorf("the host has no CA bundle (apt-get install ca-certificates): %w", err)
	}
	if h.localCAs, err = filepath.Glob(filepath.Join(caLocal, "*.crt")); err != nil {
		return nil, err
	}
	if err := h.readApt(ctx); err != nil {
		return nil, err
	}
	return h, h.readGo(ctx)
}

// readApt asks apt itself, so that any form of sources file will do.
func (h *host) readApt(ctx context.Context) error {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return err
	}
	m := regexp.MustCompile(`(?m)^VERSION_CODENAME="?([a-z]+)`).FindSubmatch(release)
	if m == nil {
		return fmt.Errorf("the base images are made of Debian's packages, and this host is not a Debian")
	}
	h.suite = string(m[1])
	targets, err := h.indexTargets(ctx)
	if err != nil {
		return err
	}
	if len(targets) == 0 { // apt learns what an archive is from its lists
		if err := command(ctx, "apt-get", "update", "-qq"); err != nil {
			return err
		}
		if targets, err = h.indexTargets(ctx); err != nil {
			return err
		}
	}
	lines := []string{}
	for _, t := range targets {
		f := strings.Split(t, "|")
		if len(f) != 3 {
			continue
		}
		if f[1] == h.suite {
			h.mirror = f[0]
		}
		lines = append(lines, fmt.Sprintf("deb %s %s %s", f[0], f[1], f[2]))
	}
	slices.Sort(lines)
	if h.mirror == "" {
		return fmt.Errorf("apt knows no Debian archive for %s (looked with apt-get indextargets)", h.suite)
	}
	h.sources = strings.Join(slices.Compact(lines), "\n") + "\n"

	dump, err := output(ctx, "apt-config", "dump", "--no-empty")
	if err != nil {
		return err
	}
	reach := regexp.MustCompile(`(?mi)^Acquire::(https?::|Retries|Check-Valid-Until|ForceIPv).*$`)
	h.aptConf = strings.Join(reach.FindAllString(dump, -1), "\n") + "\n"
	return nil
}

func (h *host) indexTargets(ctx context.Context) ([]string, error) {
	out, err := output(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI)|$(RELEASE)|$(COMPONENT)",
		"Created-By: Packages", "Origin: Debian")
	return strings.Fields(strings.ReplaceAll(out, "| ", "|")), err
}

func (h *host) readGo(ctx context.Context) error {
	out, err := output(ctx, "go", "env", "-json")
	if err != nil {
		return err
	}
	var env map[string]string
	if err := json.Unmarshal([]byte(out), &env); err != nil {
		return fmt.Errorf("go env -json: %w", err)
	}
	h.goroot, h.goversion = env["GOROOT"], env["GOVERSION"]
	for _, name := range []string{"GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOPROXY"} {
		if env[name] != "" {
			h.goenv = append(h.goenv, name+"="+env[name])
		}
	}
	return nil
}

// caInputs are the certificates as part of an image's key.
func (h *host) caInputs() []string {
	in := []string{string(h.bundle)}
	for _, f := range h.localCAs {
		b, _ := os.ReadFile(f) // one that cannot be read fails in installCAs
		in = append(in, f, string(b))
	}
	return in
}

// installCAs gives root the host's bundle, and the host's own certificates where a later installation of
// ca-certificates, which writes the bundle anew, picks them up.
func (h *host) installCAs(root string) error {
	if err := os.MkdirAll(filepath.Join(root, filepath.Dir(caBundle)), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, caBundle), h.bundle, 0o644); err != nil {
		return err
	}
	for _, f := range h.localCAs {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(root, caLocal), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, f), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// caEnv tells programs that do not look at the bundle by themselves.
func caEnv() []string {
	return []string{"SSL_CERT_FILE=" + caBundle, "NODE_EXTRA_CA_CERTS=" + caBundle}
}

// inRoot runs a shell script in root with /proc, /dev and the host's resolver, in namespaces of its own, so that
// nothing stays mounted however it ends.
func inRoot(ctx context.Context, root, script string) error {
	const prepare = `set -e
mount --make-rprivate /
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
[ -e "$1/etc/resolv.conf" ] || : > "$1/etc/resolv.conf"
mount --bind "$(realpath /etc/resolv.conf)" "$1/etc/resolv.conf"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
	chroot "$1" /bin/sh -ec "$2"`
	return command(ctx, "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", prepare, "sh", root, script)
}

// command runs a program; its output is shown when it fails.
func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, args[0], err, tail(string(out), 4000))
	}
	return nil
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return strings.TrimRight(string(out), "\n"), nil
}

func tail(s string, n int) string {
	if len(s) > n {
		return "..." + s[len(s)-n:]
	}
	return s
}

func hashStrings(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:", len(p))
		io.WriteString(h, p)
	}
	return hex.EncodeToString(h.Sum(nil))
}
