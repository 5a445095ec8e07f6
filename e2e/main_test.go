package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"larder/internal/testregistry"
)

// program is the larder under test, built once.
var program string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "larder-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "larder")
	if out, err := exec.Command("go", "build", "-o", program, "larder/cmd/larder").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build larder: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// rounds is how often a test repeats: short in an ordinary run, long under LARDER_SOAK, LARDER_SOAK itself where that is
// a number above one.
func rounds(short, long int) int {
	switch n, err := strconv.Atoi(os.Getenv("LARDER_SOAK")); {
	case err != nil || n <= 0:
		return short
	case n == 1:
		return long
	default:
		return n
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: RUN steps")
	}
}

// site is a project, a registry with its base image, and a place for local roots.
type site struct {
	said     atomic.Value // string: output of larder in the last tryBuild
	registry *testregistry.Registry
	dir      string // the context
	work     string
}

func newSite(t *testing.T, dockerfile string) *site {
	t.Helper()
	needRoot(t)
	s := &site{work: t.TempDir()}
	// On disk: in memory, base images of a hundred megabytes are copied again and again.
	s.registry = testregistry.StartWith(t, testregistry.Options{Dir: filepath.Join(s.work, "registry")})
	s.registry.PushBase(t, "busybox")
	s.dir = filepath.Join(s.work, "context")
	if err := os.MkdirAll(filepath.Join(s.dir, "src"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		text := strings.Repeat(fmt.Sprintf("line of file %d\n", i), 1+i*i%200)
		s.write(t, fmt.Sprintf("src/f%03d", i), text)
	}
	s.write(t, "src/big", strings.Repeat("0123456789abcdef", 1<<17))
	s.write(t, "Dockerfile", dockerfile)
	return s
}

func (s *site) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// command is one build over a root, ready to start. Its times are fixed, so that equal builds give equal digests.
func (s *site) command(ctx context.Context, root, out string, more ...string) *exec.Cmd {
	args := append([]string{"build", "--root", root, "--progress", "plain", "--build-arg", "REGISTRY=" + s.registry.Addr,
		"-o", "type=oci,dest=" + out + ".tar", "--metadata-file", out + ".json"}, more...)
	cmd := exec.CommandContext(ctx, program, append(args, s.dir)...)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000")
	return cmd
}

// build runs one build to its end and gives the image's digest.
func (s *site) build(t *testing.T, root, out string, more ...string) string {
	t.Helper()
	digest, err := s.tryBuild(t.Context(), root, out, more...)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func (s *site) tryBuild(ctx context.Context, root, out string, more ...string) (string, error) {
	cmd := s.command(ctx, root, out, more...)
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	err := cmd.Run()
	s.said.Store(text.String())
	if err != nil {
		return "", fmt.Errorf("larder build: %w\n%s", err, text.Bytes())
	}
	b, err := os.ReadFile(out + ".json")
	if err != nil {
		return "", err
	}
	var meta struct {
		Digest string `json:"containerimage.digest"`
	}
	if err := json.Unmarshal(b, &meta); err != nil || meta.Digest == "" {
		return "", fmt.Errorf("--metadata-file names no digest (%v): %s", err, b)
	}
	return meta.Digest, nil
}
