package e2e

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"larder/internal/testregistry"
)

// TestSoakTokens builds for five minutes against a registry whose tokens are good for one, and pushes over a line so slow
// that tokens end while layers travel: once where the token server says how long they are good, once where it does not.
// The short part does the same in seconds.
func TestSoakTokens(t *testing.T) {
	const steps = 10
	step, lifetime, size, bandwidth := 300*time.Millisecond, time.Second, 100_000, 1<<20
	if rounds(0, 1) > 0 {
		step, lifetime, size, bandwidth = 30*time.Second, time.Minute, 2_000_000, 200<<10
	}
	var b strings.Builder
	b.WriteString("ARG REGISTRY\nFROM ${REGISTRY}/busybox\n")
	for i := range steps {
		fmt.Fprintf(&b, "RUN sleep %g; head -c %d /dev/urandom > /f%d\n", step.Seconds(), size, i)
	}
	for name, unsaid := range map[string]bool{"said": false, "unsaid": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, b.String())
			g := s.guard(t, testregistry.GuardOptions{User: "joe", Password: "s3cret-of-joe", Lifetime: lifetime, Unsaid: unsaid})
			p, err := testregistry.NewProxy(s.registry.Addr, testregistry.ProxyOptions{Bandwidth: int64(bandwidth)})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			env := s.signIn(t, "joe", "s3cret-of-joe", s.registry.Addr, p.Addr)
			root := filepath.Join(s.work, "root")
			start := time.Now()
			s.larder(t, env, root, "-t", p.Addr+"/app:v1", "--push", "--cache", p.Addr+"/app", "--cache-strict")
			took := time.Since(start)
			nothingLeft(t, root, root)
			counts := g.Counts()
			t.Logf("%s, %+v, %+v", took, counts, p.Traffic())
			if took < steps*step { // uploads go on meanwhile
				t.Errorf("the build took %s only", took)
			}
			if counts.Tokens < 3 || counts.Denied != 0 || unsaid && counts.Expired == 0 {
				t.Errorf("the token server counts %+v", counts)
			}
			// The image is whole: another machine can use it.
			s.write(t, "Dockerfile", fmt.Sprintf("ARG REGISTRY\nFROM ${REGISTRY}/app:v1\nRUN test $(cat /f* | wc -c) = %d\n", steps*size))
			s.larder(t, env, filepath.Join(s.work, "other"))
		})
	}
}

// guard puts a token server before the site's registry.
func (s *site) guard(t *testing.T, opt testregistry.GuardOptions) *testregistry.Guard {
	t.Helper()
	g, err := testregistry.NewGuard(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	s.registry = testregistry.StartWith(t, testregistry.Options{Dir: filepath.Join(s.work, "guarded"), Wrap: g.Wrap})
	s.registry.PushBase(t, "busybox")
	return g
}

// signIn writes docker's config.json and gives the environment that names it.
func (s *site) signIn(t *testing.T, user, password string, hosts ...string) []string {
	t.Helper()
	var auths []string
	for _, h := range hosts {
		auths = append(auths, fmt.Sprintf(`%q:{"auth":%q}`, h, base64.StdEncoding.EncodeToString([]byte(user+":"+password))))
	}
	dir := filepath.Join(s.work, "docker")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"auths":{`+strings.Join(auths, ",")+`}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return append(os.Environ(), "DOCKER_CONFIG="+dir)
}

// larder runs one build to its end, with outputs of the test's choice.
func (s *site) larder(t *testing.T, env []string, root string, flags ...string) {
	t.Helper()
	args := append([]string{"build", "--root", root, "--progress", "plain", "--build-arg", "REGISTRY=" + s.registry.Addr}, flags...)
	cmd := exec.CommandContext(t.Context(), program, append(args, s.dir)...)
	cmd.Env = env
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	if err := cmd.Run(); err != nil {
		t.Fatalf("larder build: %v\n%s", err, text.Bytes())
	}
	if strings.Contains(text.String(), "s3cret-of-joe") {
		t.Errorf("the build tells the password:\n%s", text.Bytes())
	}
}
