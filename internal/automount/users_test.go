package automount

import (
	"strings"
	"testing"
)

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
