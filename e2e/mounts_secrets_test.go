package e2e

import (
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// TestMountSecrets writes a step's secret and a token of a tool's own settings into a cache mount: the registry gets neither, and the
// next machine has all else.
func TestMountSecrets(t *testing.T) {
	p := newCI(t, "busybox", map[string]string{"Dockerfile": `ARG REGISTRY
FROM ${REGISTRY}/busybox
ARG ROUND
RUN --mount=type=cache,target=/root/.npm --mount=type=secret,id=token <<EOF
cd /root/.npm
echo "have: $(find . -type f | sort | tr '\n' ' ')"
mkdir -p _cacache/index-v5/aa _cacache/content-v2/sha512/aa
printf 'https://joe:%s@registry/' "$(cat /run/secrets/token)" > _cacache/index-v5/aa/url
cat /run/secrets/token > copy
echo '//registry/:_authToken=npm-token-of-joe' > .npmrc
echo harmless-content > _cacache/content-v2/sha512/aa/file
mkdir -p sub && echo '//registry/:_authToken=npm-token-of-joe' > sub/.npmrc
EOF
`})
	secret := filepath.Join(p.work, "token")
	if err := os.WriteFile(secret, []byte("s3cret-of-joe-0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.fresh(t, "-o", "type=cacheonly", "--secret", "id=token,src="+secret, "--build-arg", "ROUND=1")
	sent := p.sent(t)
	for _, text := range []string{"s3cret-of-joe", "npm-token-of-joe"} {
		if bytes.Contains(sent, []byte(text)) {
			t.Errorf("the registry has %s", text)
		}
	}
	if !bytes.Contains(sent, []byte("harmless-content")) {
		t.Error("the search does not find what was saved")
	}
	b := p.fresh(t, "-o", "type=cacheonly", "--secret", "id=token,src="+secret, "--build-arg", "ROUND=2")
	if got := b.printed()[0]; got != "have: ./_cacache/content-v2/sha512/aa/file " && got != "have: ./_cacache/content-v2/sha512/aa/file" {
		t.Errorf("the next machine says %q:\n%s", got, b.said)
	}
}

// sent is all that the registry keeps, as it is and unpacked.
func (s *site) sent(t *testing.T) []byte {
	t.Helper()
	var all bytes.Buffer
	err := filepath.WalkDir(filepath.Join(s.work, "registry"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		all.Write(b)
		// Packs are frames one behind the other, with a list of their own at the end: what can be unpacked is.
		for i := 0; i+4 <= len(b); i++ {
			switch {
			case bytes.Equal(b[i:i+4], []byte{0x28, 0xb5, 0x2f, 0xfd}):
				if zr, err := zstd.NewReader(bytes.NewReader(b[i:])); err == nil {
					_, _ = io.Copy(&all, zr)
					zr.Close()
				}
			case i == 0 && bytes.Equal(b[:2], []byte{0x1f, 0x8b}):
				if zr, err := gzip.NewReader(bytes.NewReader(b)); err == nil {
					_, _ = io.Copy(&all, zr)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.Bytes()
}
