package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// busybox is one static program and what a container expects to find beside it: a few megabytes, for quick tests.
func (m *maker) busybox() (recipe, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return recipe{}, fmt.Errorf("it is made of Debian's busybox-static (apt-get install busybox-static): %w", err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return recipe{}, err
	}
	return recipe{
		inputs: append([]string{string(program)}, m.host.caInputs()...),
		env:    caEnv(),
		cmd:    []string{"sh"},
		layers: []layerStep{{"busybox-static with its applets, users, certificates", func(ctx context.Context, root string) error {
			return m.writeBusybox(ctx, root, path, program)
		}}},
	}, nil
}

func (m *maker) writeBusybox(ctx context.Context, root, path string, program []byte) error {
	for _, d := range []string{"bin", "dev", "etc", "home", "proc", "root", "sbin", "sys", "tmp", "usr/bin", "usr/sbin", "usr/local/bin", "var/tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	for _, d := range []string{"tmp", "var/tmp"} {
		if err := os.Chmod(filepath.Join(root, d), 0o777|os.ModeSticky); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(root, "root"), 0o700); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
		"etc/group":  "root:x:0:\ndaemon:x:1:\nstaff:x:50:\nwww-data:x:33:\nnogroup:x:65534:\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), program, 0o755); err != nil {
		return err
	}
	list, err := output(ctx, path, "--list-full")
	if err != nil {
		return err
	}
	for _, applet := range strings.Fields(list) {
		link := filepath.Join(root, applet)
		if _, err := os.Lstat(link); err == nil { // busybox lists itself
			continue
		}
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			return err
		}
		if err := os.Symlink("/bin/busybox", link); err != nil {
			return err
		}
	}
	return m.host.installCAs(root)
}
