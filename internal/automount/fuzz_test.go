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

// TestUsers looks at who runs a command.
func TestUsers(t *testing.T) {
	home := []string{"HOME=/home/u"}
	for _, c := range []struct {
		user string
		env  []string
		line string
		want string
		own  *Owner
		note string
	}{
		{"", nil, "npm ci", npm, nil, ""},
		{"0", nil, "npm ci", npm, nil, ""},
		{"root:root", home, "npm ci", "npm /home/u/.npm", nil, ""},
		{"0:5", nil, "npm ci", npm, nil, ""},
		{"1000", home, "npm ci", "npm /home/u/.npm", &Owner{1000, 0}, ""},
		{"1000:7", home, "npm ci", "npm /home/u/.npm", &Owner{1000, 7}, ""},
		{"1000", nil, "npm ci", "", nil, "set HOME"},
		{"1000", nil, "npm ci --cache /tmp/npm", "npm /tmp/npm", &Owner{1000, 0}, ""},
		{"1000", home, "mvn package", "", nil, "set -Dmaven.repo.local"},
		{"1000", home, "gradle build", "", nil, "set GRADLE_USER_HOME"},
		{"1000", []string{"GRADLE_USER_HOME=/cache"}, "gradle build", "", nil, "could not write to /cache"},
		{"1000", nil, "mvn -Dmaven.repo.local=/tmp/m2 package", "maven /tmp/m2", &Owner{1000, 0}, ""},
		{"1000:staff", home, "npm ci", "", nil, "number is not known"},
		{"node", home, "npm ci", "", nil, "user node, whose number"},
		{"1000", home, "sudo apt-get install -y curl", apt, nil, ""},
		{"1000", home, "sudo npm ci", "", nil, "sudo may change"},
		{"", nil, "sudo -u node npm ci", "", nil, "another user"},
		{"", nil, "sudo -u root npm ci", npm, nil, ""},
		{"", nil, "sudo -uroot -H npm ci", npm, nil, ""},
		{"", nil, "runuser -u node -- npm ci", "", nil, "another user"},
		{"", nil, "su - node -c 'npm ci'", "", nil, "another user"},
		{"-1", home, "npm ci", "", nil, "number is not known"},
		{"4294967296", home, "npm ci", "", nil, "number is not known"},
		{"", []string{"HOME=/"}, "npm ci --cache /", "", nil, "other things"},
		{"", nil, "npm ci --cache /proc/x", "", nil, "no place"},
		{"", nil, "npm ci --cache ~", "", nil, "other things"},
		{"", nil, "npm ci --cache .", "", nil, "works in there"},
		{"", nil, "npm ci --cache .npm", "npm /app/.npm", nil, ""},
		{"", nil, "cd web && npm ci --cache .npm", "npm /app/web/.npm", nil, ""},
		{"", nil, "cd $(pwd) && npm ci --cache .npm", "", nil, "only when the command runs"},
	} {
		got, skipped := Find(shell(c.line), c.env, c.user, "/app")
		if texts(got) != c.want {
			t.Errorf("%s as %q: %s, want %s", c.line, c.user, texts(got), c.want)
		}
		for _, m := range got {
			if (m.Owner == nil) != (c.own == nil) || m.Owner != nil && *m.Owner != *c.own {
				t.Errorf("%s as %q: owner %v", c.line, c.user, m.Owner)
			}
		}
		if c.note != "" && (len(skipped) != 1 || !strings.Contains(skipped[0].Why, c.note)) {
			t.Errorf("%s as %q: notes %v, want %q", c.line, c.user, skipped, c.note)
		}
	}
}
