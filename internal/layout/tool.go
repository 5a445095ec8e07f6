package layout

import (
	"path"
	"strings"

	"larder/internal/tree"
)

// tool is what is known of one tool's cache. The patterns match paths in it.
type tool struct {
	name string
	// united says that files of several writers may stand beside each other, and why says why or why not.
	united bool
	why    string

	places []string  // the directories where it is by habit: the ends of their paths
	shape  []pattern // all that is ever in it; none: anything
	must   []pattern // it has one of these
	sure   bool      // shape and must tell it from anything else, wherever it is
	apart  []pattern // with one of these in it, it is not united

	units     []pattern                // directories that are trimmed whole
	unit      func(path string) string // the same where patterns cannot say it; "" for the file itself
	restStays bool                     // what is in no unit is never trimmed
	keep      []pattern                // files that are never trimmed
	leads     []pattern                // files that go before those that they name
	excluded  []pattern                // what is not saved
	published []pattern                // what others have published: there are no secrets of the user's in it
}

// livesIn tells whether the tool has its cache in dir by habit.
func (t *tool) livesIn(dir string) bool {
	for _, p := range t.places {
		if strings.HasSuffix(dir, "/"+p) {
			return true
		}
	}
	return false
}

func (t *tool) fits(root *tree.Node) (bool, error) {
	if t.shape != nil {
		if ok, err := conforms(root, t.shape, 1<<20); !ok || err != nil {
			return false, err
		}
	}
	if t.must == nil {
		return true, nil
	}
	return existsAny(root, t.must)
}

// unitOf names the unit of a path, "" where it is the file itself.
func (t *tool) unitOf(name string) string {
	for _, p := range t.units {
		if u := p.prefix(name); u != "" {
			return u
		}
	}
	if t.unit != nil {
		return t.unit(name)
	}
	return ""
}

// partAt finds the tool in whose usual place a path of a mount at target lies, the deepest where there are several. base is that place's path in
// the mount, and rest the path in it.
func partAt(target, name string) (t *tool, base, rest string) {
	full := path.Join(target, name)
	end := 0
	for i := range tools {
		for _, p := range tools[i].places {
			at := strings.Index(full, "/"+p+"/")
			if at < 0 {
				continue
			}
			if e := at + len(p) + 2; e > end {
				t, end = &tools[i], e
			}
		}
	}
	if t == nil {
		return nil, "", name
	}
	if skip := len(full) - len(name); end > skip {
		base = strings.TrimSuffix(full[skip:end], "/")
	}
	return t, base, full[end:]
}

// goModuleUnit names the version of a module that a file is of: its directory as well as what was downloaded for it.
func goModuleUnit(name string) string {
	if rest, ok := strings.CutPrefix(name, "cache/download/"); ok {
		module, file, ok := strings.Cut(rest, "/@v/")
		if !ok {
			return ""
		}
		for _, ext := range []string{".info", ".mod", ".zip", ".ziphash", ".lock", ".partial"} {
			if version, ok := strings.CutSuffix(file, ext); ok {
				return module + "@" + version
			}
		}
		return ""
	}
	if strings.HasPrefix(name, "cache/") {
		return ""
	}
	end := 0
	for part := range strings.SplitSeq(name, "/") {
		end += len(part)
		if strings.Contains(part, "@") {
			return name[:end]
		}
		end++
	}
	return ""
}

// cargoUnit names a crate's version: its sources, which cargo believes to be whole, and the archive that they came out of.
func cargoUnit(name string) string {
	parts := strings.SplitN(name, "/", 4)
	switch {
	case len(parts) >= 3 && parts[0] == "src":
		return parts[1] + "/" + parts[2]
	case len(parts) == 3 && parts[0] == "cache":
		return parts[1] + "/" + strings.TrimSuffix(parts[2], ".crate")
	}
	return ""
}

// pipUnit joins a response's head and body.
func pipUnit(name string) string {
	if strings.HasPrefix(name, "http") {
		return strings.TrimSuffix(name, ".body")
	}
	return ""
}

// mavenUnit names the directory that a file is in: a version's.
func mavenUnit(name string) string {
	if dir := path.Dir(name); dir != "." {
		return dir
	}
	return ""
}

// bundlerUnit names a gem's version, by what its directories and files are called.
func bundlerUnit(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts[:len(parts)-1] {
		next := parts[i+1]
		switch p {
		case "gems", "doc", "build_info":
			return "gem " + strings.TrimSuffix(next, ".info")
		case "specifications":
			return "gem " + strings.TrimSuffix(next, ".gemspec")
		case "cache":
			if gem, ok := strings.CutSuffix(next, ".gem"); ok {
				return "gem " + gem
			}
			return ""
		case "extensions":
			if i+3 < len(parts) {
				return "gem " + parts[i+3]
			}
			return ""
		case "bundler":
			return ""
		}
	}
	return ""
}
