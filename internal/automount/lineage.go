package automount

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"
)

// wishes finds for each exec op which mounts it wants, and which of them it gets.
func (g *graph) wishes(ctx context.Context) error {
	var steps []*node
	for _, n := range g.nodes {
		op := n.op.GetExec()
		if op.GetMeta() == nil || n.op.Platform.GetOS() == "windows" {
			continue
		}
		n.exec = n.scan(nil)
		steps = append(steps, n)
	}
	// What a step writes to a tool's configuration is there in those that stand on it.
	for _, n := range steps {
		if len(n.exec.settings) == 0 {
			continue
		}
		upon := n.upon()
		for _, user := range steps {
			if upon[user] {
				user.settings = append(user.settings, n.exec.settings...)
			}
		}
	}
	for _, n := range steps {
		if len(n.settings) > 0 {
			n.exec = n.scan(n.settings)
		}
	}
	g.output = g.end.below()
	g.made = made(slices.DeleteFunc(slices.Clone(steps), func(n *node) bool { return !g.output[n] }))
	for _, n := range steps {
		if err := g.decide(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// scan reads a node's command. The settings are those of tools' configuration, which the environment overrides.
func (n *node) scan(settings []string) *script {
	meta := n.op.GetExec().Meta
	args, env := meta.Args, append(slices.Clone(settings), meta.Env...)
	text, interpreter := n.document()
	if interpreter != "" {
		args = []string{interpreter, "-c", text}
	}
	s := scan(args, env, meta.User, meta.Cwd)
	if interpreter == "" && text != "" { // in another language, but it may name paths
		s.calls = append(s.calls, call{args: []string{"script", text}, cwd: hole, vars: newVars(env)})
		s.words = append(slices.Clone(s.words), text)
	}
	return s
}

// document gives the here-document that a node runs as a script of its own, found in the file operation that makes it,
// and the shell that its first line names, "" if that is none.
func (n *node) document() (text, interpreter string) {
	args := n.op.GetExec().Meta.Args
	if len(args) == 0 || path.Dir(args[len(args)-1]) != "/dev/pipes" {
		return "", ""
	}
	name := path.Base(args[len(args)-1])
	for _, m := range n.op.GetExec().Mounts {
		if path.Clean(m.Dest) != "/dev/pipes" || m.Input < 0 {
			continue
		}
		for _, a := range n.inputs[m.Input].op.GetFile().GetActions() {
			f := a.GetMkfile()
			if f == nil || path.Base(f.Path) != name {
				continue
			}
			text = string(f.Data)
			first, _, _ := strings.Cut(strings.TrimPrefix(text, "#!"), "\n")
			for _, word := range strings.Fields(first) {
				if slices.Contains(shells, path.Base(word)) {
					return text, word
				}
			}
		}
	}
	return text, ""
}

// decide grants a node what it wants. The nodes below it are decided.
func (g *graph) decide(ctx context.Context, n *node) error {
	list := n.exec.granted()
	for _, w := range n.exec.wishes {
		if w.offline {
			n.kept = append(n.kept, w.Target)
		}
	}
	if len(list) == 0 {
		return nil
	}
	below, upon := n.below(), n.upon()
	for _, w := range list {
		why, kept := n.occupied(w.Target), false
		if why == "" {
			if why = g.missed(n, w, below, upon); why == "" {
				var err error
				if why, err = g.covers(ctx, n, w, below); err != nil {
					return err
				}
			}
			kept = why != ""
		}
		switch {
		case why == "":
			if w.Beside != nil && !g.tells(n, w.Beside.Path, below) {
				w.Beside = nil
			}
			n.grant = append(n.grant, w)
			continue
		case kept:
			n.kept = append(n.kept, w.Target)
		}
		n.exec.skip(w.Tool, w.Target, why)
	}
	return nil
}

// occupied says why an op can have no mount at target by what it has mounted.
func (n *node) occupied(target string) string {
	root := false
	for _, m := range n.op.GetExec().Mounts {
		dest := m.Dest
		if !path.IsAbs(dest) {
			dest = path.Join("/", n.op.GetExec().Meta.Cwd, dest)
		}
		dest = path.Clean(dest)
		switch {
		case dest == "/":
			root = !m.Readonly
		case overlap(dest, target):
			return "it has a mount of its own at " + dest
		}
	}
	if !root {
		return "its root file system is read-only"
	}
	return ""
}

// tells tells whether a file can be shown to an op beside its mount.
func (g *graph) tells(n *node, p string, below map[*node]bool) bool {
	if n.occupied(p) != "" {
		return false
	}
	for m := range below {
		if m.exec != nil && (m.exec.says(p) || m.exec.refers(p, false) != "") {
			return false // it was removed, or is meant to be something else
		}
	}
	return true
}

// missed says what in the build would miss what a command leaves at its mount's place, or what the image has there.
func (g *graph) missed(n *node, w wish, below, upon map[*node]bool) string {
	if n.offline() {
		return "the step has no network, and works with what the image has"
	}
	for _, m := range g.nodes {
		if why := m.relies(n, w, below, upon); why != "" {
			return why
		}
	}
	if w.leaves && wanted(upon, w.Target) {
		return "a step above takes what it installs there"
	}
	return g.runs(n, w, upon)
}

// relies says why a node needs to find in the image what is at the place of n's mount.
func (m *node) relies(n *node, w wish, below, upon map[*node]bool) string {
	derived := func(o *node) bool { return o == n || upon[o] }
	switch op := m.op.Op.(type) {
	case *pb.Op_File:
		for _, a := range op.File.GetActions() {
			if c := a.GetCopy(); c != nil && a.SecondaryInput >= 0 && a.SecondaryInput < int64(len(m.inputs)) &&
				derived(m.inputs[a.SecondaryInput]) && w.takenBy(c.Src) {
				return "a COPY takes " + clip(c.Src) + " from that stage"
			}
			if below[m] {
				if p := w.hides(a); p != "" {
					return p + " stands in the image before"
				}
			}
		}
	case *pb.Op_Exec:
		for _, mount := range op.Exec.GetMounts() {
			if mount.Dest != pb.RootMount && mount.Input >= 0 && derived(m.inputs[mount.Input]) && w.takenBy(mount.Selector) {
				return "a RUN mounts " + path.Clean("/"+mount.Selector) + " of that stage"
			}
		}
		if m == n || m.exec == nil || !below[m] && !upon[m] {
			return ""
		}
		return m.speaks(w, below[m])
	}
	return ""
}

// speaks says why another step of the same lineage, below or upon the mount's, keeps it from being.
func (m *node) speaks(w wish, below bool) string {
	if m.exec.cleared[w.Tool] {
		return "another step looks after that cache itself"
	}
	if word := m.exec.refers(w.Target, w.stock); word != "" {
		return "another step says " + word
	}
	for _, o := range m.exec.wishes {
		switch {
		case !overlap(o.Target, w.Target):
		case o.offline || m.offline():
			return "another step works offline with what is there"
		case o.leaves && (below || wanted(m.upon(), w.Target)):
			return "a step above takes what another installs there"
		}
	}
	if below && slices.ContainsFunc(m.kept, func(k string) bool { return overlap(k, w.Target) }) {
		return "a step before leaves it in the image"
	}
	return ""
}

func (n *node) offline() bool { return n.op.GetExec().GetNetwork() == pb.NetMode_NONE }

// wanted tells whether one of the nodes' commands uses what is at target.
func wanted(nodes map[*node]bool, target string) bool {
	for m := range nodes {
		if m.wants(target) {
			return true
		}
	}
	return false
}

func (n *node) wants(target string) bool {
	return n.exec != nil && slices.ContainsFunc(n.exec.wishes, func(o wish) bool { return !o.fills && overlap(o.Target, target) })
}

// takenBy tells whether who takes src out of a state means the mount's contents.
func (w wish) takenBy(src string) bool {
	src = path.Clean("/" + src)
	if i := strings.IndexAny(src, "*?["); i >= 0 {
		src = path.Clean(src[:strings.LastIndexByte(src[:i], '/')+1])
	}
	if w.beside && src != w.Target && within(src, w.Target) {
		return false
	}
	return overlap(src, w.Target)
}

// hides gives what a file operation makes that the mount would hide, "" if there is nothing, as far as that is known.
func (w wish) hides(a *pb.FileAction) string {
	made := ""
	switch {
	case a.GetMkfile() != nil:
		made = a.GetMkfile().Path
	case a.GetMkdir() != nil:
		made = a.GetMkdir().Path
	case a.GetSymlink() != nil:
		made = a.GetSymlink().Newpath
	case a.GetCopy() != nil:
		made = a.GetCopy().Dest
	default:
		return ""
	}
	made = path.Clean("/" + made)
	switch {
	case within(w.Target, made):
		return made
	case a.GetSymlink() != nil && within(made, w.Target):
		return "the link " + made
	case a.GetCopy() != nil && within(made, w.Target) && !w.beside && spreads(a.GetCopy().Src, made):
		return "what a COPY puts into " + made
	case a.GetCopy() != nil && within(made, w.Target) && w.stock && a.GetCopy().AttemptUnpackDockerCompatibility && strings.Contains(path.Base(a.GetCopy().Src), ".t"):
		return "what an ADD unpacks into " + made
	}
	return ""
}

// spreads tells whether a copy of src into dest may bring directories that lie deeper in dest. What looks like the name
// of a file does not, and what goes into the root only if it is a whole root.
func spreads(src, dest string) bool {
	src = path.Clean("/" + src)
	if dest == "/" {
		return src == "/" || src == "/*"
	}
	name := path.Base(src)
	return strings.LastIndexByte(name, '.') <= 0 && !strings.HasSuffix(name, "rc")
}

// overlap tells whether one of two paths lies within the other.
func overlap(a, b string) bool { return within(a, b) || within(b, a) }
