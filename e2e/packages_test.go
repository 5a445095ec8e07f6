package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// TestPackageManagers runs the package managers that Dockerfiles call, for real and behind whatever stands between
// this machine and their registries, with both runtimes.
func TestPackageManagers(t *testing.T) {
	if testing.Short() {
		t.Skip("downloads packages")
	}
	for _, c := range []struct {
		name, base, runtime, dockerfile string
		files                           map[string]string
	}{
		{"apt", "debian", "runc", `ARG REGISTRY
FROM ${REGISTRY}/debian
COPY word /word
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates tree && rm -rf /var/lib/apt/lists/*
RUN tree --version && test -s /etc/ssl/certs/ca-certificates.crt
`, map[string]string{"word": "one\n"}},
		{"go", "golang", "crun", `ARG REGISTRY
FROM ${REGISTRY}/golang AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build go build -o /out/prog .
FROM scratch
COPY --from=build /out/prog /prog
RUN ["/prog"]
`, map[string]string{
			"go.mod":  "module example.com/prog\n\ngo 1.24\n\nrequire github.com/google/uuid v1.6.0\n",
			"go.sum":  "github.com/google/uuid v1.6.0 h1:NIvaJDMOsjHA8n1jAhLSgzrAzy1Hgr+hNrb57e+94F0=\ngithub.com/google/uuid v1.6.0/go.mod h1:TIyPZe4MgqvfeYDBFedMoGGpEw/LqOeaOT+nhxU+yHo=\n",
			"main.go": "package main\n\nimport (\n\t\"fmt\"\n\n\t\"github.com/google/uuid\"\n)\n\nfunc main() { fmt.Println(uuid.New()) }\n",
		}},
		{"npm", "node", "runc", `ARG REGISTRY
FROM ${REGISTRY}/node
WORKDIR /app
COPY package.json package-lock.json ./
RUN --mount=type=cache,target=/root/.npm npm ci
RUN node -e 'process.exit(require("dayjs")("2024-02-29").isValid() ? 0 : 1)'
`, map[string]string{
			"package.json": `{"name": "app", "version": "1.0.0", "private": true, "dependencies": {"dayjs": "1.11.13"}}`,
			"package-lock.json": `{"name": "app", "version": "1.0.0", "lockfileVersion": 3, "packages": {
	"": {"name": "app", "version": "1.0.0", "dependencies": {"dayjs": "1.11.13"}},
	"node_modules/dayjs": {"version": "1.11.13", "integrity": "sha512-oaMBel6gjolK862uaPQOVTA7q3TZhuSvuMQAAglQDOWYO9A91IrAOUJEyKVlqJlHE0vq5p5UXxzdPfMH/x6xNg=="}}}`,
		}},
		{"python", "python", "crun", `ARG REGISTRY
FROM ${REGISTRY}/python
COPY mod.py /app/mod.py
RUN cd /app && python3 -c 'import mod; assert mod.answer == 42' && test -d __pycache__
`, map[string]string{"mod.py": "answer = 42\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			need(t, c.runtime)
			s := newSite(t, c.dockerfile)
			s.registry.PushBase(t, c.base)
			if err := os.RemoveAll(filepath.Join(s.dir, "src")); err != nil {
				t.Fatal(err)
			}
			for name, text := range c.files {
				s.write(t, name, text)
			}
			root := filepath.Join(s.work, "root")
			first := s.build(t, root, filepath.Join(s.work, "out1"), "--runtime", c.runtime)
			if again := s.build(t, root, filepath.Join(s.work, "out2"), "--runtime", c.runtime); again != first {
				t.Errorf("an unchanged build gave %s after %s", again, first)
			}
		})
	}
}
