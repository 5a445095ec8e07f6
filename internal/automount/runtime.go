package automount

import (
	"encoding/json"
	"path"
	"slices"
	"strings"
)

// config is what an image's config says of how it runs.
type config struct {
	Entrypoint, Cmd, OnBuild []string
	WorkingDir               string
	Healthcheck              struct{ Test []string }
}

// parseConfig reads an image's config. What cannot be read says nothing, as an image without a command does.
func parseConfig(raw []byte) config {
	var image struct {
		Config config `json:"config"`
	}
	if json.Unmarshal(raw, &image) != nil {
		return config{}
	}
	return image.Config
}

var (
	// inits run the command behind them.
	inits = []string{"tini", "dumb-init", "catatonit", "docker-init", "exec"}
	// servers are programs known to use no package manager.
	servers = []string{"nginx", "httpd", "caddy", "haproxy", "envoy", "traefik", "redis-server", "postgres", "mysqld", "mariadbd", "mongod", "memcached", "rabbitmq-server"}
	// hosts run programs of languages whose package managers are not those of compiled ones.
	hosts = []string{"node", "nodejs", "gunicorn", "uvicorn", "celery", "puma"}
	// probes are what healthchecks consist of.
	probes = []string{"curl", "wget", "nc", "test", "[", "true", "pg_isready", "redis-cli", "pgrep", "grpc_health_probe", "exit"}
	// drivers are programs that run package managers, beside shells and the package managers.
	drivers = []string{"go", "gofmt", "gotestsum", "air", "cargo", "rustc", "mvn", "mvnw", "mvnd", "gradle", "gradlew", "npm", "npx", "yarn", "yarnpkg", "pnpm", "pnpx", "corepack",
		"uv", "uvx", "poetry", "pip", "pip3", "bundle", "bundler", "rake", "gem", "composer", "make", "just", "task", "bazel", "ant", "sbt", "bash", "sh", "zsh", "dash", "ash", "ksh",
		"env", "sudo", "su", "gosu", "su-exec", "xargs", "find", "python", "python3", "perl", "ruby", "php", "java"}
)

// uses says why an image that holds what a wish leaves may use it when it runs: its command is not clearly another program. made are the
// programs that its steps compile.
func (c config) uses(w wish, made []string) string {
	if len(c.OnBuild) > 0 {
		return "the image is made to be built upon"
	}
	words := c.command()
	if len(words) == 0 {
		return "the image does not say what runs in it"
	}
	program := words[0]
	if !c.clear(words, w, made) {
		return "the image may use it when it runs " + clip(program)
	}
	for _, a := range words[1:] {
		if tells(a, w.Target) || slices.Contains(drivers, path.Base(a)) {
			return "the image may use it when it runs " + clip(program+" "+a)
		}
	}
	return c.probed(w, made)
}

// command is what runs in the image, without inits and a shell that adds nothing.
func (c config) command() []string {
	words := append(slices.Clone(c.Entrypoint), c.Cmd...)
	for len(words) > 0 {
		name := path.Base(words[0])
		switch {
		case slices.Contains(inits, name):
			words = words[1:]
			for len(words) > 0 && strings.HasPrefix(words[0], "-") {
				words = words[1:]
			}
			continue
		case slices.Contains(shells, name):
			// What is behind -c's text is the shell's own.
			if text, ok, _ := shellText(words); ok && !strings.ContainsAny(text, "\n;&|<>()$`{}*?[]!#\"'\\~=") && len(strings.Fields(text)) > 0 {
				words = strings.Fields(text)
				continue
			}
		}
		break
	}
	return words
}

// clear tells whether a command is a program that is known to be none of the tools, nor to run one.
func (c config) clear(words []string, w wish, made []string) bool {
	program := words[0]
	name := path.Base(program)
	switch {
	case slices.Contains(servers, name):
		return true
	case slices.Contains(hosts, name):
		return !slices.Contains(lasting, w.Tool)
	case name == "java":
		return slices.Contains(words, "-jar")
	case slices.Contains(drivers, name), path.Ext(name) != "", strings.Contains(name, "entrypoint"):
		return false
	}
	if strings.Contains(program, "/") && !path.IsAbs(program) {
		program = path.Join("/", c.WorkingDir, program)
	}
	return slices.ContainsFunc(made, func(m string) bool {
		switch dir := strings.HasSuffix(m, "/"); {
		case path.IsAbs(program) && dir:
			return path.Dir(program)+"/" == m
		case path.IsAbs(program):
			return path.Clean(program) == m
		case dir:
			return path.Base(m) == "bin" // which is in PATH
		}
		return path.Base(m) == program
	})
}

// probed says why the image's healthcheck may use what a wish leaves.
func (c config) probed(w wish, made []string) string {
	test := c.Healthcheck.Test
	if len(test) == 0 || test[0] != "CMD" && test[0] != "CMD-SHELL" {
		return ""
	}
	text := strings.Join(test[1:], " ")
	words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\n;&|()`\"'", r) })
	if len(words) == 0 {
		return ""
	}
	bad := tells(text, w.Target) || !slices.Contains(probes, words[0]) && !c.clear(words, w, made) || slices.ContainsFunc(words, func(a string) bool {
		name := path.Base(a)
		return slices.Contains(drivers, name) || path.Ext(name) == ".sh"
	})
	if bad {
		return "the image's healthcheck may use it: " + clip(text)
	}
	return ""
}

// made lists the programs that the nodes' commands compile, and where they copy them to.
func made(nodes []*node) []string {
	var out []string
	is := func(p string) bool {
		return slices.ContainsFunc(out, func(m string) bool { return m == p || strings.HasSuffix(m, "/") && path.Dir(p)+"/" == m })
	}
	for _, n := range nodes {
		if n.exec == nil || n.exec.opaque {
			continue
		}
		out = append(out, n.exec.programs...)
		for _, c := range n.exec.calls {
			if name := path.Base(c.args[0]); !slices.Contains(placing, name) || len(c.args) < 3 {
				continue
			}
			absolute := func(p string) string {
				if !path.IsAbs(p) {
					return path.Join(c.cwd, p)
				}
				return path.Clean(p)
			}
			last := len(c.args) - 1
			for _, a := range c.args[1:last] {
				if p := absolute(a); known(p) && known(c.args[last]) && is(p) {
					dest := absolute(c.args[last])
					out = append(out, dest, path.Join(dest, path.Base(p)))
				}
			}
		}
	}
	return out
}
