package automount

import (
	"path"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzFind looks for texts that make it fail, or answer what no mount can be.
func FuzzFind(f *testing.F) {
	for _, c := range corpus {
		f.Add(c.line, strings.Join(images[c.image], "\n"), "", "/app")
	}
	for _, c := range decoys {
		f.Add(c.line, strings.Join(images[c.image], "\n"), "1000:1000", "/")
	}
	f.Add("X='sh -c \"$X;$X\"'; sh -c \"$X\"", "HOME=/h\nGOPATH=:", "0:0", "")
	f.Add("npm ci; cd \"$(x)\"; npm ci --cache x; ((a++)); let b=1; a[1]=2; declare -A x=([a]=b); ${x[@]}", "HOME=~", "u:g", "a/../..")
	f.Fuzz(func(t *testing.T, line, env, user, cwd string) {
		list, skipped := Find(shell(line), strings.Split(env, "\n"), user, cwd)
		for i, m := range list {
			if !path.IsAbs(m.Target) || path.Clean(m.Target) != m.Target || m.Target == "/" || !known(m.Target) {
				t.Errorf("%q: target %q", line, m.Target)
			}
			for _, o := range list[:i] {
				if overlap(o.Target, m.Target) || o.Target > m.Target {
					t.Errorf("%q: %s and %s", line, o.Target, m.Target)
				}
			}
		}
		again, alike := Find(shell(line), strings.Split(env, "\n"), user, cwd)
		if texts(again) != texts(list) || !slices.Equal(skipped, alike) {
			t.Errorf("%q: %s, then %s", line, texts(list), texts(again))
		}
	})
}

// TestBounds looks at texts that would take long, or much.
func TestBounds(t *testing.T) {
	deep := strings.Repeat("(", 15_000) + strings.Repeat(")", 15_000)
	self := `X='` + strings.Repeat(`sh -c "$X";`, 50) + `' sh -c "$X"`
	double := "X=npmnpmnpmnpm; " + strings.Repeat(`X="$X$X"; `, 60) + "npm ci $X"
	wide := "X='" + strings.Repeat("a ", 5_000) + "'; echo " + strings.Repeat("$X ", 5_000) + "; npm ci"
	for name, c := range map[string]struct{ line, want string }{
		"deep":       {deep, ""},
		"itself":     {self, ""},
		"doubled":    {double, npm},
		"wide":       {wide, ""},
		"long":       {"npm ci #" + strings.Repeat("x", maxText), ""},
		"commands":   {strings.Repeat("true\n", maxCalls+1) + "npm ci", ""},
		"nested":     {strings.Repeat(`$(`, 3_000) + "npm ci" + strings.Repeat(")", 3_000), npm},
		"quoted":     {`sh -c "sh -c \"sh -c 'npm ci'\""`, npm},
		"piped":      {strings.Repeat("a|", 8_000) + "npm ci", ""},
		"shells":     {"echo '" + strings.Repeat("a;", 8_000) + "'" + strings.Repeat("|sh", 4_000), ""},
		"evaluated":  {strings.Repeat(`eval "$(x) a";`, 2_000), ""},
		"very empty": {"", ""},
	} {
		start := time.Now()
		got, _ := Find(shell(c.line), []string{"HOME=/root"}, "root:root", "/")
		if texts(got) != c.want {
			t.Errorf("%s: %s, want %s", name, texts(got), c.want)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s: %v", name, d)
		}
	}
	if got, _ := Find(nil, nil, "", ""); got != nil {
		t.Errorf("nothing: %v", got)
	}
}
