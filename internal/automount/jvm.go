package automount

import (
	"cmp"
	"slices"
	"strings"
)

// javaHome is Java's user.home: what the image's list of users says, whatever HOME is. For root that is /root.
func (w *walker) javaHome(c *call) string {
	if w.who.root && !c.other {
		return "/root"
	}
	return ""
}

// property finds -Dname=value in arguments or in variables that hold some.
func property(name string, args []string, more ...string) string {
	for _, text := range more {
		args = append(slices.Clip(args), strings.Fields(text)...)
	}
	value := ""
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, "-D"+name+"="); ok {
			value = strings.Trim(v, `"'`)
		} else if a == "-D" && i+1 < len(args) && strings.HasPrefix(args[i+1], name+"=") {
			value = args[i+1][len(name)+1:]
		}
	}
	return value
}

func (w *walker) maven(c *call, args []string) {
	l := parse(args, "-f --file -s --settings -gs --global-settings -P --activate-profiles -pl --projects -rf --resume-from -T --threads -l --log-file -t --toolchains -b --builder -D --define")
	if len(l.words) == 0 || l.has("-v", "--version", "-h", "--help") {
		return
	}
	home := cmp.Or(property("user.home", args, c.vars.get("MAVEN_OPTS")), w.javaHome(c))
	dir := cmp.Or(property("maven.repo.local", args, c.vars.get("MAVEN_OPTS"), c.vars.get("MAVEN_ARGS")), under(home, ".m2/repository"))
	// The paths of what lies in the repository are asked for to be used.
	if property("expression", args) == "settings.localRepository" || slices.ContainsFunc(l.words, func(g string) bool { return strings.HasSuffix(g, ":build-classpath") }) {
		w.clears("maven")
	}
	w.wish(c, wish{
		Mount: locked(Mount{Tool: "maven", Target: dir}),
		fills: !slices.ContainsFunc(l.words, func(goal string) bool {
			return goal != "clean" && !strings.HasPrefix(goal, "dependency:") && !strings.Contains(goal, "-dependency-plugin:") && !strings.Contains(goal, "go-offline-maven-plugin:")
		}),
		offline: l.has("-o", "--offline"),
		leaves: slices.ContainsFunc(l.words, func(goal string) bool {
			return goal == "install" || strings.Contains(goal, "install:") || strings.HasSuffix(goal, ":install") || strings.Contains(goal, ":install-file")
		}),
	})
}

func (w *walker) gradle(c *call, args []string, wrapper bool) {
	l := parse(args, "-g --gradle-user-home -p --project-dir -b --build-file -c --settings-file -I --init-script -x --exclude-task --console --max-workers --project-cache-dir -F --warning-mode")
	dir := cmp.Or(
		l.options["-g"]+l.options["--gradle-user-home"],
		property("gradle.user.home", args, c.vars.get("GRADLE_OPTS"), c.vars.get("JAVA_OPTS")),
		c.vars.get("GRADLE_USER_HOME"),
		under(w.javaHome(c), ".gradle"),
	)
	offline := l.has("--offline")
	idle := len(l.words) == 0 || l.has("-v", "--version", "-h", "--help", "--stop", "--status")
	works := !idle && slices.ContainsFunc(l.words, func(task string) bool {
		return !slices.Contains([]string{"dependencies", "help", "tasks", "properties", "projects", "clean"}, task[strings.LastIndexByte(task, ':')+1:])
	})
	if wrapper {
		w.wish(c, wish{Mount: locked(Mount{Tool: "gradle", Target: under(dir, "wrapper/dists")}), offline: offline, fills: !works})
	}
	if !idle {
		w.wish(c, wish{Mount: locked(Mount{Tool: "gradle", Target: under(dir, "caches")}), offline: offline, fills: !works})
	}
}
