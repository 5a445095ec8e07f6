package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

var revision = regexp.MustCompile(`"revision \d+"`)

// always names the same file for every edit.
func always(name string) func(int) string { return func(int) string { return name } }

// setRevision is the "one source line" of most workloads: a string that ends up in the program.
func setRevision(path string, n int) error {
	return substitute(path, revision, fmt.Sprintf(`"revision %d"`, n))
}

// addLine is what happens to a README. It makes the file longer, which is seen by who only asks for sizes.
func addLine(path string, n int) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, fmt.Appendf(text, "\nNews %d: people read this, and no step of the build does.\n", n), 0o644)
}

// chiVersions of a module that no other requires; go.sum holds all of them.
var chiVersions = []string{"v5.0.12", "v5.0.14", "v5.1.0", "v5.2.0", "v5.2.1", "v5.2.2"}

var chiLine = regexp.MustCompile(`github\.com/go-chi/chi/v5 v\S+`)

func goDependency(dir string, n int) error {
	return substitute(filepath.Join(dir, "go.mod"), chiLine, "github.com/go-chi/chi/v5 "+chiVersions[n-1])
}

var npmStep = regexp.MustCompile(`(?m)^RUN npm ci$`)

// mountNpmCache gives npm a cache mount, which it does not compare with the registry.
func mountNpmCache(dir string) error {
	return substitute(filepath.Join(dir, "Dockerfile"), npmStep, "RUN --mount=type=cache,target=/root/.npm npm ci --prefer-offline")
}

// dayjsVersions of a package without dependencies, with what the lock file says of them.
var dayjsVersions = []struct{ version, integrity string }{
	{"1.11.8", "sha512-LcgxzFoWMEPO7ggRv1Y2N31hUf2R0Vj7fuy/m+Bg1K8rr+KAs1AEy4y9jd5DXe8pbHgX+srkHNS7TH6Q6ZhYeQ=="},
	{"1.11.9", "sha512-QvzAURSbQ0pKdIye2txOzNaHmxtUBXerpY0FJsFXUMKbIZeFm5ht1LS/jFsrncjnmtv8HsG0W2g6c0zUjZWmpA=="},
	{"1.11.10", "sha512-vjAczensTgRcqDERK0SR2XMwsF/tSvnvlv6VcF2GIhg6Sx4yOIt/irsr1RDJsKiIyBzJDpCoXiWWq28MqH2cnQ=="},
	{"1.11.11", "sha512-okzr3f11N6WuqYtZSvm+F776mB41wRZMhKP+hc34YdW+KmtYYK9iqvHSwo2k9FEH3fhGXvOPV6yz2IcSrfRUDg=="},
	{"1.11.12", "sha512-Rt2g+nTbLlDWZTwwrIXjy9MeiZmSDI375FvZs72ngxx8PDC6YXOeR3q5LAuPzjZQxhiWdRKac7RKV+YyQYfYIg=="},
}

var (
	dayjsPackage = regexp.MustCompile(`"dayjs": "[^"]+"`)
	dayjsLocked  = regexp.MustCompile(`("node_modules/dayjs": \{\s+"version": ")[^"]+(",\s+"integrity": ")[^"]+"`)
)

// loosenDayjs lets package.json take any of dayjsVersions, so that only the lock file says which.
func loosenDayjs(dir string) error {
	for _, name := range []string{"package.json", "package-lock.json"} {
		if err := substitute(filepath.Join(dir, name), dayjsPackage, `"dayjs": "^`+dayjsVersions[0].version+`"`); err != nil {
			return err
		}
	}
	return nil
}

func nodeDependency(dir string, n int) error {
	for _, name := range []string{"package.json", "package-lock.json"} {
		if err := substitute(filepath.Join(dir, name), dayjsPackage, fmt.Sprintf(`"dayjs": "%s"`, dayjsVersions[n-1].version)); err != nil {
			return err
		}
	}
	return lockDependency(dir, n)
}

// lockDependency changes the lock file alone.
func lockDependency(dir string, n int) error {
	v := dayjsVersions[n-1]
	return substitute(filepath.Join(dir, "package-lock.json"), dayjsLocked, "${1}"+v.version+"${2}"+v.integrity+`"`)
}

// aptPackages are small ones, so that the heavy part stays the same.
var aptPackages = []string{"tree", "jq", "file", "bc", "less", "unzip"}

var aptLast = regexp.MustCompile(`(?m)^python3\n(?:.+\n)?`)

func aptDependency(dir string, n int) error {
	return substitute(filepath.Join(dir, "packages.txt"), aptLast, "python3\n"+aptPackages[n-1]+"\n")
}

// substitute replaces the only place in a file that matches, and insists that this changes the file.
func substitute(path string, pattern *regexp.Regexp, with string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if n := len(pattern.FindAllIndex(old, -1)); n != 1 {
		return fmt.Errorf("%s: %d places match %s, want one", path, n, pattern)
	}
	edited := pattern.ReplaceAll(old, []byte(with))
	if string(edited) == string(old) {
		return fmt.Errorf("%s: the edit %q changes nothing", path, with)
	}
	return os.WriteFile(path, edited, 0o644)
}
