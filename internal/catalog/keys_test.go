package catalog

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"larder/internal/fault"
)

func newKey(t *testing.T) (ed25519.PublicKey, ed25519.PrivateKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return public, private
}

// pemOf writes a key as openssl does.
func pemOf(t *testing.T, k any) []byte {
	t.Helper()
	kind := "PRIVATE KEY"
	b, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		kind = "PUBLIC KEY"
		b, err = x509.MarshalPKIXPublicKey(k)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})
}

// opensslKey was made for this test by `openssl genpkey -algorithm ed25519`, opensslPublic from it by `openssl pkey -pubout`.
const (
	opensslKey = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIActh/uWpal3gV1RLsxq/eSg5eMleNtuzbBd8rRfsj5R
-----END PRIVATE KEY-----
`
	opensslPublic = `-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAg2OeDUvEveRqRrg2eDkpe1ieYARbQy3PU0V++wph4YA=
-----END PUBLIC KEY-----
`
)

func TestParseKeys(t *testing.T) {
	private, err := ParsePrivate([]byte(opensslKey))
	if err != nil {
		t.Fatal(err)
	}
	public, err := ParsePublic([]byte(opensslPublic))
	if err != nil || !public.Equal(private.Public()) {
		t.Fatalf("%v; the two keys do not belong together", err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const secret = "hunter2"
	for name, c := range map[string]struct {
		text    []byte
		private bool
		want    string
	}{
		"nothing":                   {nil, true, "openssl genpkey -algorithm ed25519"},
		"not PEM":                   {[]byte(secret), true, "openssl genpkey"},
		"public instead of private": {[]byte(opensslPublic), true, "private key that belongs to it"},
		"encrypted":                 {pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte(secret)}), true, "passphrase"},
		"OpenSSH's":                 {pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: []byte(secret)}), true, "openssl genpkey"},
		"cut":                       {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte(secret)}), true, "cannot be read"},
		"another algorithm":         {pemOf(t, other), true, "not an ed25519 key"},
		"no public key":             {nil, false, "openssl pkey"},
		"private instead of public": {[]byte(opensslKey), false, "should not have"},
		"a certificate":             {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE"}), false, "not a public key"},
		"cut public":                {pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte(secret)}), false, "cannot be read"},
		"another public":            {pemOf(t, &other.PublicKey), false, "not an ed25519 key"},
	} {
		var err error
		if c.private {
			_, err = ParsePrivate(c.text)
		} else {
			_, err = ParsePublic(c.text)
		}
		if err == nil || fault.Of(err) != fault.Usage || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
		if len(c.text) > 60 && bytes.Contains([]byte(err.Error()), c.text[30:60]) {
			t.Errorf("%s: the error shows the key: %v", name, err)
		}
	}
}

func TestTrustHasAName(t *testing.T) {
	a, _ := newKey(t)
	b, signB := newKey(t)
	both := (&Keys{Verify: []ed25519.PublicKey{a, b}}).ID()
	for name, k := range map[string]*Keys{
		"another order":      {Verify: []ed25519.PublicKey{b, a}},
		"twice":              {Verify: []ed25519.PublicKey{b, a, b}},
		"one's own included": {Verify: []ed25519.PublicKey{a}, Sign: signB},
	} {
		if k.ID() != both {
			t.Errorf("%s: %s, want %s", name, k.ID(), both)
		}
	}
	one := (&Keys{Verify: []ed25519.PublicKey{a}}).ID()
	if one == "" || one == both || (&Keys{}).ID() != "" || (*Keys)(nil).ID() != "" {
		t.Errorf("%q %q", one, both)
	}
}
