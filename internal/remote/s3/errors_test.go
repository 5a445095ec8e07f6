package s3

import (
	"context"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"

	"larder/internal/fault"
	"larder/internal/remote"
	"larder/internal/remote/storetest"
)

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestAnswers says what each refusal of a server becomes, and that its text repeats no credential.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		status  int
		code    string
		message string
		is      error // nil: a passing failure
		says    string
	}{
		{404, "NoSuchKey", "The specified key does not exist.", remote.ErrNotFound, "not in the store"},
		{404, "NoSuchBucket", "The specified bucket does not exist", remote.ErrDenied, `has no bucket "fake": make it`},
		{403, "AccessDenied", "Access Denied", remote.ErrDenied, "s3:ListBucket"},
		{403, "InvalidAccessKeyId", "no such key " + testKey, remote.ErrDenied, "refuses the credentials (InvalidAccessKeyId: no such key ***"},
		{403, "SignatureDoesNotMatch", "signed with " + testSecret + " it seems", remote.ErrDenied, "signed with *** it seems"},
		{400, "ExpiredToken", "The provided token has expired.", remote.ErrDenied, "ExpiredToken"},
		{403, "RequestTimeTooSkewed", "too large", remote.ErrDenied, "clock of this machine"},
		{301, "PermanentRedirect", "must be addressed elsewhere", remote.ErrDenied, "of region us-east-1"},
		{400, "AuthorizationHeaderMalformed", "the region 'us-east-1' is wrong; expecting 'eu-west-1'", remote.ErrDenied, "expecting 'eu-west-1'"},
		{412, "PreconditionFailed", "did not hold", remote.ErrConflict, "somebody else"},
		{409, "ConditionalRequestConflict", "conflict", remote.ErrConflict, "somebody else"},
		{501, "NotImplemented", "not implemented", remote.ErrUnsupported, "cannot do that"},
		{404, "NoSuchUser", "No user has that access key.", remote.ErrDenied, "404 (NoSuchUser: No user"},
		{400, "KeyTooLongError", "Your key is too long", remote.ErrFinal, "400 (KeyTooLongError: Your key"},
		{503, "SlowDown", "Please reduce your request rate.", nil, "503: Please reduce your request rate."},
		{500, "InternalError", "We encountered an internal error.", nil, "500"},
		{400, "Odd", "a \x1b[31mred\x1b[0m word " + strings.Repeat("x", 1000), nil, "[31mred"},
	} {
		s := open(t, (&fake{}).serve(t, func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				answerError(w, c.status, c.code, strings.ReplaceAll(c.message, "\x1b", "&#x85;"))
			})
		}))
		_, err := s.Open(t.Context(), storetest.Describe([]byte("x")))
		if err == nil {
			t.Errorf("%s: no error", c.code)
			continue
		}
		text := err.Error()
		if !strings.Contains(text, c.says) || !strings.HasPrefix(text, "get s3://fake/blobs/sha256/") || fault.Of(err) != fault.Registry || len(text) > 700 {
			t.Errorf("%s: %v", c.code, err)
		}
		for _, is := range []error{remote.ErrNotFound, remote.ErrDenied, remote.ErrConflict, remote.ErrUnsupported, remote.ErrDamaged, remote.ErrFinal} {
			if errors.Is(err, is) != (is == c.is) {
				t.Errorf("%s: %v: is %v: %v", c.code, err, is, errors.Is(err, is))
			}
		}
		if strings.Contains(text, testKey) || strings.Contains(text, testSecret) || strings.ContainsAny(text, "\x1b\u0085") {
			t.Errorf("%s: %q", c.code, text)
		}
	}
}

func TestRealRefusals(t *testing.T) {
	c := bucket(t)
	wrong := c
	wrong.SecretKey = "not-the-secret"
	if _, err := open(t, wrong).Manifest(t.Context(), "main"); !errors.Is(err, remote.ErrDenied) || strings.Contains(err.Error(), wrong.SecretKey) {
		t.Errorf("a wrong secret: %v", err)
	}
	wrong = c
	wrong.AccessKey = "NOBODY"
	if _, err := open(t, wrong).Manifest(t.Context(), "main"); !errors.Is(err, remote.ErrDenied) {
		t.Errorf("an unknown key: %v", err)
	}
	wrong = c
	wrong.Bucket = "no-such-bucket"
	s := open(t, wrong)
	for what, op := range map[string]func() error{
		"read": func() error { _, err := s.Manifest(t.Context(), "main"); return err },
		"put": func() error {
			up := storetest.Upload([]byte("x"))
			up.New = true
			_, err := s.Put(t.Context(), up)
			return err
		},
		"list": func() error { _, err := s.Names(t.Context(), ""); return err },
	} {
		if err := op(); !errors.Is(err, remote.ErrDenied) || !strings.Contains(err.Error(), `no bucket "no-such-bucket"`) {
			t.Errorf("%s: %v", what, err)
		}
	}
	wrong = c
	wrong.Region = "eu-central-1"
	if _, err := open(t, wrong).Manifest(t.Context(), "main"); !errors.Is(err, remote.ErrDenied) || !strings.Contains(err.Error(), "region eu-central-1") {
		t.Errorf("another region: %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	c := Config{Bucket: "bucket", Endpoint: "http://" + addr, PathStyle: true, AccessKey: testKey, SecretKey: testSecret}
	if _, err := open(t, c).Manifest(t.Context(), "main"); err == nil || !strings.Contains(err.Error(), addr+" refuses connections") {
		t.Errorf("nobody there: %v", err)
	}
	c = (&fake{}).serve(t, nil)
	plain := strings.TrimPrefix(c.Endpoint, "http://")
	c.Endpoint = "https://" + plain
	if _, err := open(t, c).Manifest(t.Context(), "main"); err == nil || !strings.Contains(err.Error(), "endpoint_url=http://"+plain) {
		t.Errorf("plain HTTP: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("the build was stopped")
	cancel(stop)
	if _, err := open(t, c).Manifest(ctx, "main"); !errors.Is(err, stop) {
		t.Errorf("cancelled: %v", err)
	}
}
