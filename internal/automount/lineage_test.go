package automount

import (
	"strings"
	"testing"
)

// TestLineage looks at what else a Dockerfile says about the place of a mount.
func TestLineage(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want string // mounts, sorted, separated by "; "
		note string // a part of one of the notes
	}{
		"copied out":            {"FROM golang AS deps\nRUN go mod download\nFROM golang\nCOPY --from=deps /go/pkg/mod /go/pkg/mod\nRUN go mod verify\n", "", "a COPY takes /go/pkg/mod from that stage"},
		"copied out, above":     {"FROM golang AS deps\nRUN go mod download\nFROM alpine\nCOPY --from=deps /go /go\n", "", "a COPY takes /go "},
		"copied out, below":     {"FROM golang AS deps\nRUN go mod download\nFROM alpine\nCOPY --from=deps /go/pkg/mod/cache /c\n", "", "a COPY takes"},
		"copied out, pattern":   {"FROM golang AS deps\nRUN go mod download\nFROM alpine\nCOPY --from=deps /go/*/mod /c\n", "", "a COPY takes"},
		"copied out, elsewhere": {"FROM golang AS deps\nRUN go mod download\nFROM alpine\nCOPY --from=deps /go/bin /go/pkg/modern /bin/\n", "go mod download: /go/pkg/mod", ""},
		"copied out later":      {"FROM golang AS deps\nRUN go mod download\nFROM deps AS more\nRUN touch /x\nFROM alpine\nCOPY --from=more /go/pkg/mod /m\n", "", "a COPY takes"},
		"copied out before":     {"FROM golang AS base\nRUN touch /x\nFROM base AS deps\nRUN go mod download\nFROM deps\nCOPY --from=base /go /go2\nRUN go mod tidy\n", "go mod download: /go/pkg/mod; go mod tidy: /go/pkg/mod", ""},
		"copied in":             {"FROM golang\nCOPY --from=cache /mod /go/pkg/mod\nRUN go mod verify\n", "", "/go/pkg/mod stands in the image before"},
		"copied in, linked":     {"FROM golang\nCOPY --from=cache --link /mod /go/pkg/mod/\nRUN go mod verify\n", "", "stands in the image before"},
		"copied in, above":      {"FROM golang\nCOPY --from=cache /go /go\nRUN go mod verify\n", "", "what a COPY puts into /go"},
		"copied in, a file":     {"FROM maven\nCOPY settings.xml /root/.m2/\nRUN mvn package\n", "mvn package: /root/.m2/repository", ""},
		"copied in, root":       {"FROM node\nCOPY entrypoint /\nRUN npm ci\n", "npm ci: /root/.npm", ""},
		"copied in, whole root": {"FROM node\nCOPY --from=other / /\nRUN npm ci\n", "", "what a COPY puts into /"},
		"copied in later":       {"FROM node\nRUN npm ci\nCOPY npm /root/.npm\nRUN npm i -g x\n", "npm ci: /root/.npm", "stands in the image before"},
		"context into home":     {"FROM node\nWORKDIR /root\nCOPY . .\nRUN npm ci\n", "", "what a COPY puts into /root"},
		"a file made":           {"FROM node\nCOPY <<EOF /root/.npm/x\nhi\nEOF\nRUN npm ci\n", "", "stands in the image before"},
		"bound":                 {"FROM node AS a\nRUN npm ci\nFROM alpine\nRUN --mount=from=a,source=/root/.npm,target=/n ls /n\n", "", "a RUN mounts /root/.npm of that stage"},
		"bound, elsewhere":      {"FROM node AS a\nRUN npm ci\nFROM alpine\nRUN --mount=from=a,source=/app,target=/n ls /n\n", "npm ci: /root/.npm", ""},
		"spoken of above":       {"FROM node\nRUN npm ci\nRUN ls /root/.npm\n", "", "another step says ls /root/.npm"},
		"spoken of below":       {"FROM node\nRUN tar xf cache.tar -C /root/.npm\nRUN npm ci\n", "", "another step says tar /root/.npm"},
		"spoken of, in home":    {"FROM node\nRUN npm ci\nRUN cp -r ~/.npm /out\n", "", "another step says cp /root/.npm"},
		"spoken of, above it":   {"FROM python\nRUN pip install x\nRUN mv /root/.cache /out\n", "", "another step says mv /root/.cache"},
		"spoken of, unreadable": {"FROM node\nRUN npm ci\nRUN (ls /root/.npm\n", "", "another step says its text"},
		"spoken of elsewhere":   {"FROM node AS a\nRUN npm ci\nFROM node AS b\nRUN ls /root/.npm > /l\nFROM scratch\nCOPY --from=a /app /app\nCOPY --from=b /l /l\n", "npm ci: /root/.npm", ""},
		"a name like it":        {"FROM node\nRUN npm ci\nRUN rm -f /root/.npmrc && ls /root/.npm-global\n", "npm ci: /root/.npm", ""},
		"own mount":             {"FROM node\nRUN --mount=type=cache,target=/root/.npm,id=x npm ci\n", "npm ci: /root/.npm", "a mount of its own at /root/.npm"},
		"own mount above":       {"FROM python\nRUN --mount=type=cache,target=/root/.cache pip install x\n", "pip install x: /root/.cache", "a mount of its own at /root/.cache"},
		"own mount below":       {"FROM golang\nRUN --mount=type=tmpfs,target=/go/pkg/mod/cache go mod download\n", "", "a mount of its own at /go/pkg/mod/cache"},
		"own relative mount":    {"FROM node\nWORKDIR /root\nRUN --mount=type=cache,target=.npm npm ci\n", "npm ci: /root/.npm", "a mount of its own"},
		"offline":               {"FROM maven\nRUN mvn dependency:go-offline\nRUN mvn -o package\n", "", "another step works offline"},
		"offline, no network":   {"FROM golang\nRUN go mod download\nRUN --network=none go build ./...\n", "", "the step has no network"},
		"offline, pnpm":         {"FROM pnpm\nRUN pnpm fetch\nCOPY . /app\nRUN pnpm install --offline\n", "", "another step works offline"},
		"installs for later":    {"FROM maven\nRUN mvn install -pl lib\nRUN mvn package -pl app\n", "", "a step above takes"},
		"installs last":         {"FROM maven\nRUN mvn dependency:resolve\nRUN mvn clean install\n", "mvn clean install: /root/.m2/repository; mvn dependency:resolve: /root/.m2/repository", ""},
		"left before":           {"FROM golang AS a\nRUN go mod download\nFROM alpine AS c\nCOPY --from=a /go/pkg /p\nFROM a\nRUN go list ./...\nCOPY --from=c /p /p\n", "go list ./...: /root/.cache/go-build", "a step before leaves it in the image"},
		"set before":            {"FROM node\nRUN npm config set cache /var/npm\nRUN npm ci\n", "npm ci: /var/npm", ""},
		"set before, in vain":   {"FROM node\nRUN npm config set cache /var/npm\nENV npm_config_cache=/env/npm\nRUN npm ci\n", "npm ci: /env/npm", ""},
		"named user":            {"FROM node\nENV HOME=/home/node\nUSER node\nRUN npm ci\n", "", "whose number is not known"},
		"numeric user":          {"FROM python\nUSER 1000\nRUN pip install x\n", "", "nothing says where user 1000 has its home directory"},
		"numeric user, deep":    {"FROM python\nENV HOME=/h\nUSER 1000\nRUN pip install x\n", "", "could not write to /h/.cache"},
		"gems copied":           {"FROM ruby AS a\nRUN bundle install\nFROM ruby\nCOPY --from=a /usr/local/bundle /usr/local/bundle\n", "bundle install: /usr/local/bundle/cache", ""},
		"gems' archives copied": {"FROM ruby AS a\nRUN bundle install\nFROM ruby\nCOPY --from=a /usr/local/bundle/cache /c\n", "", "a COPY takes"},
		"spoken of in a script": {"FROM node\nRUN npm ci\nRUN <<EOF\n#!/usr/bin/python3\nprint('/root/.npm')\nEOF\n", "", "another step says script"},
		"several steps":         {"FROM golang\nWORKDIR /src\nCOPY go.* ./\nRUN go mod download\nCOPY . .\nRUN go build .\n", "go build .: /go/pkg/mod; go build .: /root/.cache/go-build; go mod download: /go/pkg/mod", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, notes := mounted(t, c.text)
			if strings.Join(got, "; ") != c.want {
				t.Errorf("got  %s\nwant %s", strings.Join(got, "; "), c.want)
			}
			var all []string
			for _, a := range notes {
				all = append(all, a.Lines()...)
			}
			if !strings.Contains(strings.Join(all, "\n"), c.note) {
				t.Errorf("notes %q, want %q", all, c.note)
			}
		})
	}
}
