package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// golang is the host's own tool chain on Debian: Debian's is older than what this module needs.
func (m *maker) golang() (recipe, error) {
	const path = "/usr/local/go/bin:/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	return recipe{
		parent: "debian",
		inputs: append([]string{m.host.goversion, m.host.goroot}, m.host.goenv...),
		env: append([]string{"PATH=" + path, "GOPATH=/go", "GOTOOLCHAIN=local", "CGO_ENABLED=0"},
			m.host.goenv...),
		layers: []layerStep{
			aptInstall("ca-certificates git"),
			{m.host.goversion + " in /usr/local/go", func(ctx context.Context, root string) error {
				if err := os.MkdirAll(filepath.Join(root, "go"), 0o777); err != nil {
					return err
				}
				return command(ctx, "cp", "-a", m.host.goroot, filepath.Join(root, "usr/local/go"))
			}},
		},
	}, nil
}

// node is the host's Node.js where it has one with npm, else Debian's.
func (m *maker) node() (recipe, error) {
	r := recipe{parent: "debian", cmd: []string{"node"}}
	ctx := context.Background()
	registry := ""
	modules := ""
	if npm, err := exec.LookPath("npm"); err == nil {
		if registry, err = output(ctx, npm, "config", "get", "registry"); err != nil {
			return recipe{}, err
		}
		if real, err := filepath.EvalSymlinks(npm); err == nil && strings.HasSuffix(real, "/npm/bin/npm-cli.js") {
			modules = filepath.Dir(filepath.Dir(real))
		}
	}
	node, err := exec.LookPath("node")
	if err != nil || modules == "" {
		r.inputs = []string{"apt", registry}
		r.layers = []layerStep{aptInstall("ca-certificates nodejs npm"), npmrcLayer("/etc/npmrc", registry)}
		return r, nil
	}
	version, err := output(ctx, node, "--version")
	if err != nil {
		return recipe{}, err
	}
	r.inputs = []string{version, modules, registry}
	r.layers = []layerStep{
		aptInstall("ca-certificates libstdc++6"),
		{"node " + version + " with npm in /usr/local", func(ctx context.Context, root string) error {
			script := `set -e
install -D -m 755 "$(realpath "$1")" "$3/usr/local/bin/node"
mkdir -p "$3/usr/local/lib/node_modules"
cp -a "$2" "$3/usr/local/lib/node_modules/npm"
ln -s ../lib/node_modules/npm/bin/npm-cli.js "$3/usr/local/bin/npm"
ln -s ../lib/node_modules/npm/bin/npx-cli.js "$3/usr/local/bin/npx"`
			if err := command(ctx, "sh", "-c", script, "sh", node, modules, root); err != nil {
				return err
			}
			return inRoot(ctx, root, "/usr/local/bin/node --version && /usr/local/bin/node /usr/local/bin/npm --version && rm -rf /root/.npm")
		}},
		npmrcLayer("/usr/local/etc/npmrc", registry),
	}
	return r, nil
}

// npmrcLayer tells npm which certificates and which registry hold on this host.
func npmrcLayer(path, registry string) layerStep {
	return layerStep{"npm's settings", func(_ context.Context, root string) error {
		text := fmt.Sprintf("cafile=%s\nupdate-notifier=false\nfund=false\naudit=false\n", caBundle)
		if registry != "" {
			text += "registry=" + registry + "\n"
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(root, path), []byte(text), 0o644)
	}}
}

// python is Debian's.
func (m *maker) python() (recipe, error) {
	return recipe{
		parent: "debian",
		inputs: []string{m.host.suite},
		cmd:    []string{"python3"},
		layers: []layerStep{aptInstall("ca-certificates python3")},
	}, nil
}

// toolchain is what compares times of files: make, ninja and Python, a C compiler for the first two, and SQLite; and pip.
func (m *maker) toolchain() (recipe, error) {
	const packages = "make gcc libc6-dev ninja-build python3 python3-pip sqlite3"
	return recipe{
		parent: "debian",
		inputs: []string{m.host.suite, packages},
		cmd:    []string{"bash"},
		layers: []layerStep{aptInstall(packages)},
	}, nil
}
