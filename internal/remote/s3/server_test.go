package s3

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"larder/internal/flock"
	"larder/internal/testregistry"
)

const (
	testKey    = "LARDERTESTKEY"
	testSecret = "larder-test-secret"
	testRegion = "us-east-1"
)

// gateway is the real S3 server that the tests of this package share: versitygw on a directory.
var gateway struct {
	once sync.Once
	err  error
	url  string
	stop func()
}

func TestMain(m *testing.M) {
	minio.DefaultRetryUnit = time.Millisecond // what minio-go waits after a request that it does not repeat
	code := m.Run()
	if gateway.stop != nil {
		gateway.stop()
	}
	os.Exit(code)
}

// startGateway builds the server, which takes a minute once and half a second afterwards, and starts it.
func startGateway() (err error) {
	dir := filepath.Join(testregistry.CacheDir(), "peers")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	bin := filepath.Join(dir, "versitygw")
	lock, err := flock.Acquire(context.Background(), bin+".lock", flock.Exclusive)
	if err != nil {
		return err
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, "github.com/versity/versitygw/cmd/versitygw")
	build.Dir = "peer"
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	out, err := build.CombinedOutput()
	lock.Unlock()
	if err != nil {
		return fmt.Errorf("build the S3 server of the tests: %w\n%s", err, out)
	}
	root, err := os.MkdirTemp("", "larder-s3-")
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := l.Addr().String()
	l.Close()
	var log bytes.Buffer
	// ETags are kept in extended attributes. Its other place for them (--sidecar) is written after the object, so that its
	// comparisons lose updates.
	server := exec.Command(bin, "--port", addr, "--access", testKey, "--secret", testSecret, "--region", testRegion, "--keep-alive", "--quiet",
		"posix", root)
	server.Stdout, server.Stderr = &log, &log
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test binary that times out takes it along
	if err := server.Start(); err != nil {
		return err
	}
	gateway.stop = func() {
		server.Process.Kill()
		server.Wait()
		os.RemoveAll(root)
	}
	gateway.url = "http://" + addr
	for range 200 {
		if conn, err := net.Dial("tcp", addr); err == nil {
			return conn.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	gateway.stop()
	return fmt.Errorf("the S3 server of the tests does not start: %s", log.String())
}

var bucketNumber atomic.Int32

// bucket makes a bucket on the real server.
func bucket(t *testing.T) Config {
	t.Helper()
	gateway.once.Do(func() { gateway.err = startGateway() })
	if gateway.err != nil {
		t.Fatal(gateway.err)
	}
	c := Config{
		Bucket: fmt.Sprintf("bucket-%d", bucketNumber.Add(1)), Region: testRegion, Prefix: "team/", Endpoint: gateway.url, PathStyle: true,
		AccessKey: testKey, SecretKey: testSecret,
	}
	s := open(t, c)
	if err := s.client.MakeBucket(t.Context(), c.Bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t *testing.T, c Config) *Store {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// keys lists all objects of a Store's bucket.
func keys(t *testing.T, s *Store) []string {
	t.Helper()
	var list []string
	for o := range s.client.ListObjectsIter(t.Context(), s.cfg.Bucket, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		list = append(list, o.Key)
	}
	return list
}

func content(t *testing.T, rc io.ReadCloser, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	var b strings.Builder
	if _, err := io.Copy(&b, rc); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
