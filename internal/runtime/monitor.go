package runtime

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	runc "github.com/containerd/go-runc"
)

// monitor is go-runc's seam for starting processes. Commands of our executors are recognised by their path, which is a
// link in the executor's own directory; all others pass unchanged.
type monitor struct {
	runc.ProcessMonitor

	mu        sync.Mutex
	executors map[string]*Executor
}

var (
	hook     = &monitor{ProcessMonitor: runc.Monitor, executors: map[string]*Executor{}}
	hookOnce sync.Once
)

func (m *monitor) add(e *Executor) {
	hookOnce.Do(func() { runc.Monitor = m })
	m.mu.Lock()
	m.executors[e.link()] = e
	m.mu.Unlock()
}

func (m *monitor) remove(e *Executor) {
	m.mu.Lock()
	delete(m.executors, e.link())
	m.mu.Unlock()
}

func (m *monitor) Start(cmd *exec.Cmd) (chan runc.Exit, error) {
	return m.start(cmd, m.ProcessMonitor.Start)
}

func (m *monitor) StartLocked(cmd *exec.Cmd) (chan runc.Exit, error) {
	return m.start(cmd, m.ProcessMonitor.StartLocked)
}

func (m *monitor) start(cmd *exec.Cmd, start func(*exec.Cmd) (chan runc.Exit, error)) (chan runc.Exit, error) {
	m.mu.Lock()
	e := m.executors[cmd.Path]
	m.mu.Unlock()
	if e == nil {
		return start(cmd)
	}
	if e.adapt(cmd) {
		return exited(), nil
	}
	if e.hide {
		start = startWithoutUnified
	}
	exit, err := start(cmd)
	if sub, id := subcommand(cmd.Args); err == nil && sub == "run" {
		if t := e.terminal(id); t != nil {
			t.runtime.Store(int64(cmd.Process.Pid))
		}
	}
	return exit, err
}

// adapt rewrites a command of ours; true says that there is nothing to run.
func (e *Executor) adapt(cmd *exec.Cmd) (done bool) {
	cmd.Path = e.rt.Path
	cmd.Args[0] = e.rt.Path
	cmd.Env = runtimeEnv()
	sub, id := subcommand(cmd.Args)
	if i := slices.Index(cmd.Args, "--log"); i > 0 && i+1 < len(cmd.Args) {
		cmd.Args[i+1] = e.logFile(id)
		if e.rt.Name == "crun" {
			// Without the word it takes what stands before a colon in the path for the kind of log.
			cmd.Args[i+1] = "file:" + e.logFile(id)
		}
	}
	switch sub {
	case "run":
		// Without --keep the runtime deletes the container as soon as it ended.
		cmd.Args = slices.DeleteFunc(cmd.Args, func(a string) bool { return a == "--keep" })
		config := filepath.Join(e.root(), id, "config.json")
		if e.rt.Name == "crun" {
			lowerSpecVersion(config)
		}
		if t := e.terminal(id); t != nil {
			t.firstSize(config)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = t.slave, t.slave, t.slave
		}
	case "delete":
		if _, err := os.Lstat(filepath.Join(e.state(), id)); err != nil {
			return true
		}
	}
	cmd.Args = slices.Insert(cmd.Args, 1, e.globalArgs(id)...)
	return false
}

var specVersion = regexp.MustCompile(`^{"ociVersion":"1\.[0-9]+\.[0-9]+"`)

// lowerSpecVersion makes a container's configuration say that it is of version 1.0.2 of the OCI spec: crun before 1.9
// looks no further when it reads 1.1 or later, though nothing that a step needs is newer than 1.0. If this fails, crun
// says what it does not like.
func lowerSpecVersion(path string) {
	data, err := os.ReadFile(path)
	if err != nil || !specVersion.Match(data) {
		return
	}
	os.WriteFile(path, specVersion.ReplaceAll(data, []byte(`{"ociVersion":"1.0.2"`)), 0o644)
}

// subcommand finds what go-runc asks for, and the container that it is about.
func subcommand(args []string) (sub, id string) {
	last := len(args) - 1
	for i := 1; i < len(args); i++ {
		switch a := args[i]; {
		case a == "--log" || a == "--log-format" || a == "--root":
			i++
		case strings.HasPrefix(a, "--"):
		case a == "kill":
			return a, args[last-1] // a signal follows
		default:
			return a, args[last]
		}
	}
	return "", ""
}

func exited() chan runc.Exit {
	c := make(chan runc.Exit, 1)
	c <- runc.Exit{Timestamp: time.Now()}
	close(c)
	return c
}

// runtimeEnv keeps from the runtime, which a container's processes descend from, what larder's own environment holds:
// tokens of a CI job above all.
func runtimeEnv() []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// loggedError gives the last error that the runtime logged: why a container could not be started. Empty when there is
// none.
func loggedError(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	last := ""
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 256<<10)
	for sc.Scan() {
		var line struct{ Level, Msg string }
		if json.Unmarshal(sc.Bytes(), &line) == nil && (line.Level == "error" || line.Level == "fatal") {
			last = line.Msg
		}
	}
	return last
}
