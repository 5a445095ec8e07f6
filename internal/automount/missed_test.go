package automount

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"
)

// TestOthersWords looks at steps that take the place of another's mount in words that are not all known.
func TestOthersWords(t *testing.T) {
	for line, denied := range map[string]bool{
		// asking the tool
		`cp -r "$(go env GOMODCACHE)" /x`:             true,
		`d=$(go env GOMODCACHE); tar cf /mods.tar $d`: true,
		`go env GOPATH > /where`:                      true,
		`go env GOVERSION > /where`:                   false,
		`go clean -modcache`:                          true,
		// words with holes
		`for d in pkg; do cp -r /go/$d /x; done`:              true,
		`dir=$(echo /go); cp -r $dir /x`:                      true,
		`dir=$(echo go); cp -r /$dir /x`:                      true,
		`read -r d < /where; rsync -a $d/ /x`:                 true,
		`ls -d /go/* | xargs -I{} cp -r {} /x`:                true,
		`echo /go | xargs tar cf /x.tar`:                      true,
		`find / -name mod -exec cp -r {} /x \;`:               true,
		`find /go -maxdepth 1 -exec cp -r {} /x \;`:           true,
		`find dist -name '*.js' -exec cp {} /x \;`:            false,
		`find / -xdev | cpio -pdm /x`:                         true,
		`tar cf /x.tar -T /list`:                              true,
		`tar -cf /x.tar -C/go pkg`:                            true,
		`eval "cp -r $(echo /go) /x"`:                         true,
		`sh -c "cp -r $(echo /go) /x"`:                        true,
		`curl -fO https://x.example.org/node-$(uname -m).tgz`: false,
		`tar xzf node-$(uname -m).tgz -C /opt`:                false,
		`cp build/app-$(uname -m) /app`:                       false,
		`d=$(mktemp -d); rm -rf "$d"`:                         false,
		`install -D /srv/$(uname -m)-linux-gnu/x /usr/lib/x`:  true, // which may begin with ".."
		`cd src-$(uname -m) && cp README /doc`:                false,
		`cd $(cat /where) && cp -r pkg /x`:                    true,
		`dd if=$(cat /where) of=/x`:                           true,
		// working in it, or in the root
		`cd /go/pkg/mod && for f in m@*; do cp -r $f /x; done`: true,
		`cd /go/pkg/mod && sha256sum * > /sums`:                true,
		`cd / && tar c --exclude=proc . > /srv/x.tar`:          true,
		`cd / && cp -ax / /rootfs`:                             true,
		`cp -ax / /rootfs`:                                     true,
		`rsync -a --exclude /proc / /rootfs`:                   true,
		`cp entrypoint /`:                                      false,
		`cp -r staging/. /`:                                    true,
		`cp -r go /`:                                           true,
		`tar xzf mods.tgz -C /`:                                true, // go's may be in it
		// texts for others to read
		`printf 'cp -r /go /x' | sh`:                                   true,
		`printf 'cp -r %s /x' /go | sh`:                                true,
		`echo 'cd / && cp -r go x' | sh -s`:                            true,
		`echo 'cp -ax / /x' | bash`:                                    true,
		`sh <<< 'cp -r /go /x'`:                                        true,
		`. <(echo cp -r /go /x)`:                                       true,
		`awk 'BEGIN{system("cp -r /go /x")}'`:                          true,
		`awk 'BEGIN{system("cp -ax / /x")}'`:                           true,
		`awk -F/ '{print $2}' list`:                                    false,
		`python3 -c 'import shutil; shutil.copytree("/go", "/x")'`:     true,
		`perl -e 'system "cp -r $ENV{GOPATH}/pkg /x"'`:                 true,
		"python3 - <<EOF\nimport os\nos.system('cp -r /go /x')\nEOF\n": true,
		`python3 -c 'print("/go/bin/x")'`:                              false,
		`node -e 'require("fs").cpSync("/go/", "/x")'`:                 true,
		`echo hello | sh -c cat`:                                       false,
	} {
		text := "FROM golang\nRUN go build -o /app .\nSHELL [\"/bin/bash\", \"-c\"]\nRUN <<LINE\n" + line + "\nLINE\n"
		got, notes := mounted(t, text)
		if denied == strings.Contains(strings.Join(got, " "), "/go/pkg/mod") {
			t.Errorf("%s: %q %v", line, got, notes)
		}
		text = "FROM golang\nSHELL [\"/bin/bash\", \"-c\"]\nRUN <<LINE\n" + line + "\nLINE\nRUN go build -o /app .\n"
		if got, notes := mounted(t, text); denied == strings.Contains(strings.Join(got, " "), "/go/pkg/mod") {
			t.Errorf("before, %s: %q %v", line, got, notes)
		}
	}
}

// TestOwnWords looks at commands that do so beside what wants the mount.
func TestOwnWords(t *testing.T) {
	for line, want := range map[string]string{
		`go mod download && cp -r "$(go env GOPATH)/pkg" /x`:                "",
		`go mod download; for d in pkg; do cp -r /go/$d /x; done`:           "",
		`go mod download; printf 'cp -r /go /x' | sh`:                       "",
		`go mod download; awk 'BEGIN{system("cp -r /go /x")}'`:              "",
		`go mod download; cp -ax / /rootfs`:                                 "",
		`go mod download; cd /go/pkg/mod && for f in *; do tar cf $f; done`: "",
		`go mod download; cp build/x-$(uname -m) /x; rm -rf "$TMP"`:         goMod,
	} {
		if got, notes := Find(shell(line), images["golang"], "", "/app"); texts(got) != want {
			t.Errorf("%s: %s %v", line, texts(got), notes)
		}
	}
}

// TestRuns looks at what the image that comes out needs when it runs.
func TestRuns(t *testing.T) {
	const both = "/go/pkg/mod /root/.cache/go-build"
	for _, c := range []struct{ text, config, want string }{
		{"FROM golang\nRUN go build -o /app .", `"Entrypoint": ["/app"]`, both},
		{"FROM golang\nRUN go build -o /app .", `"Entrypoint": ["/tini", "-g", "--", "/app"], "Cmd": ["serve"]`, both},
		{"FROM golang\nRUN go build -o /app .", `"Cmd": ["/bin/sh", "-c", "/app --port 80"]`, both},
		{"FROM golang\nRUN go build -o /app .", `"Cmd": ["/bin/sh", "-c", "/app || go run ."]`, ""},
		{"FROM golang\nRUN go build -o /app .", `"Cmd": ["/app"], "Healthcheck": {"Test": ["CMD-SHELL", "curl -f http://localhost/ || exit 1"]}`, both},
		{"FROM golang\nRUN go build -o /app .", `"Cmd": ["/app"], "Healthcheck": {"Test": ["NONE"]}`, both},
		{"FROM golang\nRUN go build -o /app .", `"Cmd": ["/app"], "Healthcheck": {"Test": ["CMD", "go", "vet"]}`, ""},
		{"FROM golang\nRUN go build -o /app .", `"Cmd": ["/app"], "Healthcheck": {"Test": ["CMD-SHELL", "curl x && ./check.sh"]}`, ""},
		{"FROM golang\nRUN go build -o /app .", `"Cmd": ["/app"], "OnBuild": ["RUN go build"]`, ""},
		{"FROM golang\nRUN go build -o /app .", `"Entrypoint": ["/app"], "Cmd": ["go", "test"]`, ""},
		{"FROM golang\nRUN go build -o /app .", `"Entrypoint": ["/other"]`, ""},
		{"FROM golang\nRUN go build -o /app .", `"Cmd": ["bash"]`, ""},
		{"FROM golang\nRUN go build -o /app .", `"Cmd": ["/entrypoint.sh"]`, ""},
		{"FROM golang\nRUN go build -o /app .", `"Cmd": ["python3", "run_tests.py"]`, ""},
		{"FROM golang\nRUN go build -o /app .", ``, ""},
		{"FROM golang\nWORKDIR /src\nRUN go build -o bin/app .", `"WorkingDir": "/src", "Cmd": ["./bin/app"]`, both},
		{"FROM golang\nRUN go install .", `"Cmd": ["app"]`, both},
		{"FROM golang\nRUN go mod download", `"Cmd": ["go", "run", "."]`, ""},
		{"FROM golang\nRUN go mod download", `"Cmd": ["nginx"]`, ""},
		{"FROM golang\nRUN go mod download && go mod verify\nRUN go mod verify", `"Cmd": ["nginx"]`, ""},
		{"FROM golang\nRUN go mod download\nRUN go vet ./...", `"Cmd": ["nginx"]`, "/go/pkg/mod " + both},
		{"FROM golang AS b\nRUN go mod download\nFROM scratch\nCOPY --from=b /app /app", ``, "/go/pkg/mod"},
		{"FROM golang AS b\nRUN go mod download\nFROM b AS c\nRUN go build .\nFROM b", `"Cmd": ["nginx"]`, ""},
		{"FROM rust\nRUN cargo fetch", `"Cmd": ["nginx"]`, ""},
		{"FROM rust\nRUN cargo install --path .", `"Cmd": ["app"]`, "/usr/local/cargo/git/db /usr/local/cargo/registry"},
		{"FROM rust\nWORKDIR /a\nRUN cargo build --release && cp target/release/app /usr/bin/", `"Cmd": ["/usr/bin/app"]`, "/usr/local/cargo/git/db /usr/local/cargo/registry"},
		{"FROM rust\nRUN cargo build --release", `"Cmd": ["cargo", "test", "--offline"]`, ""},
		{"FROM maven\nRUN mvn dependency:go-offline", `"Cmd": ["java", "-jar", "/app.jar"]`, ""},
		{"FROM maven\nRUN mvn package", `"Cmd": ["java", "-jar", "/app.jar"]`, "/root/.m2/repository"},
		{"FROM maven\nRUN mvn package", `"Cmd": ["java", "-cp", "@/cp", "Main"]`, ""},
		{"FROM maven\nRUN mvn package dependency:build-classpath", `"Cmd": ["nginx"]`, ""},
		{"FROM gradle\nRUN gradle --version", `"Cmd": ["nginx"]`, ""},
		{"FROM gradle\nRUN gradle dependencies", `"Cmd": ["nginx"]`, ""},
		{"FROM gradle\nRUN gradle dependencies\nRUN gradle build", `"Cmd": ["java", "-jar", "x.jar"]`, "/root/.gradle/caches /root/.gradle/caches"},
		{"FROM node\nRUN npm ci", ``, "/root/.npm"},
		{"FROM node\nRUN npx playwright install", `"Cmd": ["npm", "test"]`, ""},
		{"FROM node\nRUN npm ci && npx prisma generate", `"Cmd": ["node", "x.js"]`, "/root/.npm"},
	} {
		got, notes := mountedWith(t, c.text+"\n", plain("", `{"config": {`+c.config+`}}`))
		for i, m := range got {
			got[i] = m[strings.LastIndexByte(m, ' ')+1:]
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s\n%s\n got  %s\n want %s\n %v", c.text, c.config, strings.Join(got, " "), c.want, notes)
		}
	}
}

// TestCovered looks at what the image that a step stands on has at the place of a mount.
func TestCovered(t *testing.T) {
	for name, c := range map[string]struct {
		text, want, note string
	}{
		"go":       {"FROM golang\nRUN go build .", "", "docker.io/library/golang:latest@"},
		"go, deep": {"FROM golang AS a\nRUN touch /x\nFROM a\nWORKDIR /src\nCOPY . .\nRUN go build .", "", "has something there"},
		"cargo":    {"FROM rust\nRUN cargo build", "", "has something there"},
		"berry":    {"FROM node\nRUN yarn dlx x", "", "has something there"},
		"unknown":  {"FROM broken\nRUN GOPATH=/go go build .", "", "is not known: no such image"},
		"empty":    {"FROM empty\nRUN GOPATH=/go GOCACHE=off go build .", "RUN", ""},
		"npm":      {"FROM node\nRUN npm ci", "RUN", ""},
		"apt":      {"FROM debian\nRUN apt-get install -y curl", "RUN", ""},
	} {
		asked := map[string]int{}
		opt := plain("", serving)
		opt.Occupied = func(_ context.Context, source *pb.Definition, path string) (bool, error) {
			all := decoded(t, source)
			id := all[0].GetSource().GetIdentifier()
			if len(all) != 2 || all[0].Platform.GetArchitecture() != "amd64" || all[1].Op != nil || len(all[1].Inputs) != 1 {
				t.Errorf("%s: a definition of %v", name, all)
			}
			asked[id+path]++
			if strings.Contains(id, "broken") {
				return false, errors.New("no such image")
			}
			return !strings.Contains(id, "empty"), nil
		}
		def := compile(t, c.text+"\n", "", "amd64")
		_, notes, err := Attach(t.Context(), def, opt)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		n := 0
		for _, a := range notes {
			all = append(all, a.Lines()...)
			n += len(a.Mounts)
		}
		if (n > 0) != (c.want != "") || !strings.Contains(strings.Join(all, "\n"), c.note) {
			t.Errorf("%s: %q", name, all)
		}
		for p, n := range asked {
			if n > 1 {
				t.Errorf("%s: asked %d times for %s", name, n, p)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	opt := plain("", serving)
	opt.Occupied = func(ctx context.Context, _ *pb.Definition, _ string) (bool, error) { cancel(); return false, ctx.Err() }
	if _, _, err := Attach(ctx, compile(t, "FROM golang\nRUN go build .\n", "", "amd64"), opt); !errors.Is(err, context.Canceled) {
		t.Errorf("a build that was stopped: %v", err)
	}
}
