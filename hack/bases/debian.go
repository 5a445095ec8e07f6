package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// aptImage are the settings that Debian's own images have: keep no downloads, do not sync after every file.
const aptImage = `Acquire::Languages "none";
APT::Keep-Downloaded-Packages "false";
Binary::apt::APT::Keep-Downloaded-Packages "false";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
`

// debian is a minimal Debian of the host's release with the host's apt sources and certificates.
func (m *maker) debian() (recipe, error) {
	if _, err := exec.LookPath("debootstrap"); err != nil {
		return recipe{}, fmt.Errorf("it is made by debootstrap (apt-get install debootstrap): %w", err)
	}
	h := m.host
	return recipe{
		inputs: append([]string{h.suite, h.mirror, h.sources, h.aptConf}, h.caInputs()...),
		env:    caEnv(),
		cmd:    []string{"bash"},
		layers: []layerStep{{"debootstrap --variant=minbase " + h.suite, func(ctx context.Context, root string) error {
			if err := command(ctx, "debootstrap", "--variant=minbase", h.suite, root, h.mirror); err != nil {
				return err
			}
			return m.finishDebian(ctx, root)
		}}},
	}, nil
}

func (m *maker) finishDebian(ctx context.Context, root string) error {
	for name, text := range map[string]string{
		"etc/apt/sources.list":       m.host.sources,
		"etc/apt/apt.conf.d/90host":  m.host.aptConf,
		"etc/apt/apt.conf.d/91image": aptImage,
		"etc/dpkg/dpkg.cfg.d/image":  "force-unsafe-io\n",
		"usr/sbin/policy-rc.d":       "#!/bin/sh\nexit 101\n", // no service starts in a build
		"etc/hostname":               "localhost\n",
		"etc/resolv.conf":            "",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(root, "usr/sbin/policy-rc.d"), 0o755); err != nil {
		return err
	}
	if err := m.host.installCAs(root); err != nil {
		return err
	}
	// The release's own updates, then nothing that the next apt-get update writes anew.
	return inRoot(ctx, root, "apt-get update -qq; apt-get dist-upgrade -y -qq; "+aptClean)
}

const aptClean = `apt-get clean; rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log /var/log/bootstrap.log /var/log/alternatives.log /var/cache/debconf/*-old /var/cache/ldconfig/aux-cache`

// aptInstall is a layer of packages, with recommended ones left out.
func aptInstall(packages string) layerStep {
	return layerStep{"apt-get install --no-install-recommends " + packages, func(ctx context.Context, root string) error {
		return inRoot(ctx, root, "apt-get update -qq; apt-get install -y -qq --no-install-recommends "+packages+"; "+aptClean)
	}}
}
