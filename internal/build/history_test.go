package build

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"larder/internal/disk"
	"larder/internal/export"
	"larder/internal/report"
)

// explained gives the last build of a machine.
func (m *machine) explained() *report.Build {
	m.t.Helper()
	past := pastOf(m.engine.Root())
	ids, err := past.Builds()
	if err != nil || len(ids) == 0 {
		m.t.Fatalf("%v, %v", ids, err)
	}
	b, err := past.Explanation(ids[len(ids)-1])
	if err != nil {
		m.t.Fatal(err)
	}
	return b
}

// plain builds dir with no cache but the local root.
func plain(dir string) *Request {
	r := request(dir, "registry.example/app")
	r.Cache = Cache{}
	r.Outputs = []map[string]string{{"type": export.Image, "store": "false"}}
	return r
}

// TestReadsAfterNoChange still knows what a step looked at when builds without changes came after the one in which it ran.
func TestReadsAfterNoChange(t *testing.T) {
	m := newLookingMachine(t)
	dir := project(t, copied("scratch"))
	for n := range 3 {
		_, res := m.must(plain(dir))
		if (res.Ran > 0) != (n == 0) {
			t.Fatalf("build %d: %d steps ran", n, res.Ran)
		}
		var out strings.Builder
		if err := report.Reads(&out, m.explained(), "look two"); err != nil || !strings.Contains(out.String(), "/app/sub/c") {
			t.Errorf("build %d: %v\n%s", n, err, out.String())
		}
	}
}

// TestProjectsApart compares a build with the last one of the same place, not with another project's of the same names.
func TestProjectsApart(t *testing.T) {
	m := newLookingMachine(t)
	a, b := project(t, copied("scratch")), project(t, copied("scratch"))
	write(t, b, map[string]string{"a": "of b"})
	m.must(plain(a))
	m.must(plain(b))
	if why := whyOf(m.explained(), "look one"); !strings.HasPrefix(why, "never seen before") {
		t.Errorf("another project's first build: %s", why)
	}
	write(t, a, map[string]string{"b": "changed"})
	m.must(plain(a))
	if why := whyOf(m.explained(), "look two"); !strings.Contains(why, "changed /app/b; this step read it") {
		t.Errorf("after the other project: %s", why)
	}
}

func whyOf(b *report.Build, step string) string {
	for _, s := range b.Steps {
		if strings.Contains(s.Name, step) {
			return report.Short(s.Why)
		}
	}
	return "no such step"
}

// TestHistoryKeys tells builds apart by what a person means with the same build.
func TestHistoryKeys(t *testing.T) {
	dir := project(t, copied("scratch"))
	t.Chdir(dir)
	of := func(r Request) *history { return (&building{req: &r}).openHistory() }
	one := of(Request{Context: dir})
	for name, c := range map[string]struct {
		req        Request
		same, here bool
	}{
		"the Dockerfile by its name":          {Request{Context: dir, Dockerfile: filepath.Join(dir, "Dockerfile")}, true, true},
		"a relative context":                  {Request{Context: ".", Dockerfile: filepath.Join(dir, "Dockerfile")}, true, true},
		"a relative Dockerfile":               {Request{Context: dir, Dockerfile: "Dockerfile"}, true, true},
		"another checkout":                    {Request{Context: project(t, nil)}, true, false},
		"another target":                      {Request{Context: dir, Target: "x"}, false, false},
		"a Dockerfile from standard input":    {Request{Context: dir, DockerfileText: []byte("FROM a")}, false, false},
		"a Dockerfile from another directory": {Request{Context: dir, Dockerfile: "x/Dockerfile"}, false, false},
	} {
		h := of(c.req)
		if (h.key == one.key) != c.same || (h.project == one.project) != c.here {
			t.Errorf("%s: same in a catalog %t, on this machine %t", name, h.key == one.key, h.project == one.project)
		}
		ids := map[string]bool{} // of builds that began at once
		for range 20 {
			ids[h.id()] = true
		}
		if len(ids) < 10 || projectOf(h.id()) != h.project {
			t.Errorf("%s: %d IDs, such as %s", name, len(ids), h.id())
		}
	}
}

// TestPast keeps the last builds, whatever the clock says.
func TestPast(t *testing.T) {
	p := pastOf(t.TempDir())
	id := func(day, project, n int) string { return fmt.Sprintf("202601%02d-100000000-%08x%04x", day, project, n) }
	put := func(id string) {
		t.Helper()
		if err := p.put(id, []byte(id)); err != nil {
			t.Fatal(err)
		}
	}
	put(id(30, 7, 0)) // another project
	ahead := time.Now().Add(24 * time.Hour)
	for n := range maxBuilds {
		put(id(20, 1, n))
		if err := os.Chtimes(p.path(id(20, 1, n)), ahead, ahead); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 3 {
		put(id(10, 1, n))
		ids, err := p.Builds()
		if err != nil || ids[len(ids)-1] != id(10, 1, n) {
			t.Errorf("the last build is not the one that was just written: %v, %v", ids, err)
		}
	}
	if _, err := os.Stat(p.path(id(30, 7, 0))); err != nil {
		t.Errorf("the only build of another project is gone: %v", err)
	}
	for n := range maxProjects + 1 {
		put(id(11, 100+n, 0))
	}
	if ids, _ := p.Builds(); len(ids) != maxProjects || ids[len(ids)-1] != id(11, 100+maxProjects, 0) {
		t.Errorf("%d builds are kept", len(ids))
	}
}

// TestBuildsArePruned counts what is known of builds as what else there is, and removes what a killed build left of it.
func TestBuildsArePruned(t *testing.T) {
	e, err := Open(t.Context(), Config{Root: t.TempDir(), Idle: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	past := pastOf(e.Root())
	for _, id := range []string{"old", "new"} {
		if err := past.put(id, []byte("12345")); err != nil {
			t.Fatal(err)
		}
	}
	write(t, past.dir, map[string]string{disk.Temporary + "1": "killed"})
	now := time.Now()
	old := now.Add(-2 * time.Hour)
	if err := os.Chtimes(past.path("old"), old, old); err != nil {
		t.Fatal(err)
	}
	uses, err := e.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var size int64
	for _, u := range uses {
		if u.Kind == "build" {
			size += u.Size
		}
	}
	if size != int64(len("12345")*2+len("killed")) {
		t.Errorf("builds take %d bytes", size)
	}
	for _, c := range []struct {
		unused time.Duration
		left   string
	}{{time.Hour, "[new]"}, {0, "[]"}} {
		if _, err := e.Prune(t.Context(), Prune{Unused: c.unused, MaxSize: -1}, now.Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		ids, err := past.Builds()
		files, err2 := os.ReadDir(past.dir)
		if err != nil || err2 != nil || fmt.Sprint(ids) != c.left || len(files) != len(ids) {
			t.Errorf("unused %s: %v, %v", c.unused, ids, files)
		}
	}
}

func TestWithoutUserinfo(t *testing.T) {
	for text, want := range map[string]string{
		"get https://me:s3cret@h/x: 404":          "get https://h/x: 404",
		"git+ssh://git@h/x and http://a:b@c@h:1/": "git+ssh://h/x and http://h:1/",
		"image docker-image://node@sha256:12":     "image docker-image://node@sha256:12",
		"https://h/a@b":                           "https://h/a@b",
	} {
		if got := withoutUserinfo(text); got != want {
			t.Errorf("%q became %q", text, got)
		}
	}
}
