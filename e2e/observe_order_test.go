package e2e

import (
	"crypto/rand"
	"os"
	"testing"
)

// inWorstOrder edits a project whose Dockerfile copies everything before it installs anything, and builds it on one machine and each time on an
// empty one, whose cache is in a registry.
func inWorstOrder(t *testing.T, c *ci, files map[string]string, edits []edit) {
	t.Helper()
	remove := func(root string) {
		c.takeBack(t, root)
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
	}
	c.edit(t, map[string]string{"README": "hello\n", ".git/HEAD": "ref: refs/heads/main\n", "docs/manual": "read me\n"})
	t.Run("one machine", func(t *testing.T) {
		root := c.machine(t)
		c.try(t, root, edits)
		remove(root)
	})
	c.edit(t, files)
	t.Run("empty machines", func(t *testing.T) {
		for _, e := range edits {
			root := c.machine(t)
			c.try(t, root, []edit{e}, "--cache", c.cache, "--cache-strict")
			remove(root)
		}
	})
}

// anew is an edit that writes something else each time.
func anew(name, before, after string) func(t *testing.T, c *ci) {
	return func(t *testing.T, c *ci) {
		t.Helper()
		c.edit(t, map[string]string{name: before + rand.Text() + after})
	}
}

// TestWorstOrderNode installs from apt and npm, and bundles.
func TestWorstOrderNode(t *testing.T) {
	registry := newPackages(t)
	for _, name := range []string{"firstone", "secondone"} {
		registry.npmPackage(t, name)
	}
	registry.deb(t, "somedeb")
	files, more := npmAuto(registry.addr, []string{"firstone"}), npmAuto(registry.addr, []string{"firstone", "secondone"})
	delete(more, "Dockerfile")
	files["Dockerfile"] = `ARG REGISTRY=localhost
FROM ${REGISTRY}/node
ENV npm_config_registry=http://` + registry.addr + `/
RUN rm -rf /etc/apt/sources.list.d && echo "deb [trusted=yes allow-insecure=yes] http://` + registry.addr + `/apt ./" > /etc/apt/sources.list
WORKDIR /app
COPY . .
RUN apt-get update && apt-get install -y --no-install-recommends somedeb && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/*
RUN npm ci && rm -rf /root/.npm
RUN node bundle.js > /bundle
`
	files["bundle.js"] = `const fs = require("fs")
for (const f of fs.readdirSync("src")) console.log(fs.readFileSync("src/" + f, "utf8"))
for (const d of Object.keys(JSON.parse(fs.readFileSync("package.json")).dependencies)) console.log(require(d + "/package.json").version)
`
	files["src/a.js"], files["src/b.js"] = "a\n", "b\n"
	inWorstOrder(t, newCI(t, "node", files), files, []edit{ // sources.list, apt, npm, bundle
		{"nothing before", func(*testing.T, *ci) {}, "ran ran ran ran"},
		{"a source file", anew("src/a.js", "", "\n"), "exact observed observed ran"},
		{"README", anew("README", "", "\n"), "exact observed observed observed"},
		{"a dependency more", func(t *testing.T, c *ci) { t.Helper(); c.edit(t, more) }, "exact observed ran ran"},
	})
}

// TestWorstOrderPython installs from an index of wheels, and bundles.
func TestWorstOrderPython(t *testing.T) {
	registry := newPackages(t)
	for _, name := range []string{"firstone", "secondone"} {
		registry.wheel(t, name)
	}
	files := map[string]string{
		"Dockerfile": `ARG REGISTRY=localhost
FROM ${REGISTRY}/toolchain
ENV PYTHONDONTWRITEBYTECODE=1 PIP_INDEX_URL=http://` + registry.addr + `/simple/
WORKDIR /app
COPY . .
RUN pip install --break-system-packages --no-cache-dir --no-compile -r requirements.txt
RUN python3 bundle.py > /bundle
`,
		"requirements.txt": "firstone\n", "src/__init__.py": "", "src/a.py": "text = 'a'\n",
		"bundle.py": "import firstone, src.a\nprint(firstone.answer, src.a.text)\n",
	}
	inWorstOrder(t, newCI(t, "toolchain", files), files, []edit{
		{"nothing before", func(*testing.T, *ci) {}, "ran ran"},
		{"a source file", anew("src/a.py", "text = '", "'\n"), "observed ran"},
		{"README", anew("README", "", "\n"), "observed observed"},
		{"a dependency more", writes("requirements.txt", "firstone\nsecondone\n"), "ran ran"},
	})
}

// TestWorstOrderGo downloads modules, and lists what a program is made of.
func TestWorstOrderGo(t *testing.T) {
	registry := newPackages(t)
	registry.module(t, "one")
	registry.module(t, "two")
	mod := func(more string) string {
		return "module example.com/app\n\ngo 1.24\n\nrequire example.com/one v1.0.0\n" + more
	}
	files := map[string]string{
		"Dockerfile": `ARG REGISTRY=localhost
FROM ${REGISTRY}/golang
ENV GOPROXY=http://` + registry.addr + ` GOSUMDB=off GOFLAGS="-mod=mod -buildvcs=false" HOME=/dev/shm
WORKDIR /src
COPY . .
RUN go mod download
RUN go list -deps ./cmd/app > /bundle && cat cmd/app/*.go >> /bundle
`,
		"go.mod": mod(""), "cmd/app/main.go": "package main\n\nimport _ \"example.com/one\"\n\nfunc main() {}\n",
	}
	inWorstOrder(t, newCI(t, "golang", files), files, []edit{
		{"nothing before", func(*testing.T, *ci) {}, "ran ran"},
		{"a source file", anew("cmd/app/main.go", "package main\n\nimport _ \"example.com/one\"\n\nfunc main() { println(`", "`) }\n"), "observed ran"},
		{"README", anew("README", "", "\n"), "observed observed"},
		{"a dependency more", writes("go.mod", mod("require example.com/two v1.0.0\n")), "ran ran"},
	})
}
