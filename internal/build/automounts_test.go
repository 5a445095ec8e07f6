package build

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"larder/internal/testregistry"
)

// TestAutoMountsOverBase gives a step that compiles Go a mount where its base image has nothing, and none where it has modules, straight or
// by a link, or where they are in the way.
func TestAutoMountsOverBase(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	for name, c := range map[string]struct {
		base  func(dir string) error
		lines string // of the base image's Dockerfile
		mount bool
	}{
		"nothing":         {nil, "COPY files /go/src/", true},
		"empty directory": {nil, "WORKDIR /go/pkg/mod", true},
		"modules":         {nil, "COPY files /go/pkg/mod/m@v1/", false},
		"a file":          {nil, "COPY files/f /go/pkg/mod", false},
		"by a link": {func(dir string) error { return os.Symlink("/opt/go", filepath.Join(dir, "links/go")) },
			"COPY files /opt/go/pkg/mod/m@v1/\nCOPY links /", false},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, reg.Addr)
			tag := strings.ReplaceAll(name, " ", "-")
			dir := project(t, map[string]string{"files/f": "priv", "links/x": "", "Dockerfile": "FROM " + reg.Addr + "/base\n" + c.lines + "\n"})
			if c.base != nil {
				if err := c.base(dir); err != nil {
					t.Fatal(err)
				}
			}
			base := reg.Addr + "/golang:" + tag
			m.must(request(dir, base))
			text := "FROM " + base + "\nENV GOPATH=/go GOCACHE=off\nWORKDIR /src\nRUN go build -o /app .\nENTRYPOINT [\"/app\"]\n"
			for _, machine := range []*machine{m, newMachine(t, reg.Addr)} { // it is the same where the base image is not there yet
				req := request(project(t, map[string]string{"Dockerfile": text}), reg.Addr+"/app:"+tag)
				req.AutoMounts = true
				machine.must(req)
				said := machine.text()
				if strings.Contains(said, "auto-mounts: go /go/pkg/mod") != c.mount || strings.Contains(said, "auto-mounts: not go /go/pkg/mod: docker-image://"+base) == c.mount {
					t.Errorf("a mount: want %v\n%s", c.mount, said)
				}
			}
		})
	}
}

// TestAutoMountsForImages denies what the image needs when it runs, by its config.
func TestAutoMountsForImages(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	for line, mount := range map[string]bool{`ENTRYPOINT ["/app"]`: true, `CMD ["go", "run", "."]`: false, `CMD /app`: true, `CMD /app; go run .`: false, ``: false} {
		m := newMachine(t, reg.Addr)
		text := "FROM " + reg.Addr + "/base\nENV GOPATH=/go GOCACHE=off\nRUN go build -o /app .\n" + line + "\n"
		req := request(project(t, map[string]string{"Dockerfile": text}), reg.Addr+"/x")
		req.AutoMounts = true
		m.must(req)
		if said := m.text(); strings.Contains(said, "auto-mounts: go /go/pkg/mod") != mount {
			t.Errorf("%s: want %v\n%s", line, mount, said)
		}
		m.close()
	}
}
