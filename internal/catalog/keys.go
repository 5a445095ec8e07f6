package catalog

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"larder/internal/fault"
	"larder/internal/key"
)

// Keys say who may write a catalog. The zero value signs nothing and checks nothing.
type Keys struct {
	// Sign signs what is written. What it signed is believed as well: a signed catalog never takes over unsigned records.
	Sign ed25519.PrivateKey
	// Verify lists whose catalogs are believed.
	Verify []ed25519.PublicKey
}

// signatureDomain keeps the signature of a catalog from being taken for one of anything else.
const signatureDomain = "larder catalog v1\n"

const (
	makePrivate = "`openssl genpkey -algorithm ed25519 -out larder.key` makes one"
	makePublic  = "`openssl pkey -in larder.key -pubout -out larder.pub` writes it"
)

// ParsePrivate reads a key for signing: PKCS #8 in PEM. What is wrong with it is an error of kind Usage that shows none of it.
func ParsePrivate(text []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fault.Errorf(fault.Usage, "the key for signing is not in PEM form; %s", makePrivate)
	}
	switch block.Type {
	case "PRIVATE KEY":
	case "ENCRYPTED PRIVATE KEY":
		return nil, fault.Errorf(fault.Usage, "the key for signing is protected by a passphrase; `openssl pkey -in KEY -out larder.key` takes it off")
	case "PUBLIC KEY":
		return nil, fault.Errorf(fault.Usage, "the key for signing is a public one; what is needed is the private key that belongs to it")
	default:
		return nil, fault.Errorf(fault.Usage, "the key for signing is a %.40q, not an ed25519 key; %s", block.Type, makePrivate)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "the key for signing cannot be read; %s", makePrivate)
	}
	private, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, fault.Errorf(fault.Usage, "the key for signing is not an ed25519 key; %s", makePrivate)
	}
	return private, nil
}

// ParsePublic reads a key for checking signatures: SPKI in PEM. What is wrong with it is an error of kind Usage.
func ParsePublic(text []byte) (ed25519.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fault.Errorf(fault.Usage, "the key for checking signatures is not in PEM form; %s", makePublic)
	}
	if strings.HasSuffix(block.Type, "PRIVATE KEY") {
		return nil, fault.Errorf(fault.Usage, "the key for checking signatures is a private one, which who only reads should not have; %s", makePublic)
	}
	if block.Type != "PUBLIC KEY" {
		return nil, fault.Errorf(fault.Usage, "the key for checking signatures is a %.40q, not a public key; %s", block.Type, makePublic)
	}
	k, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "the key for checking signatures cannot be read; %s", makePublic)
	}
	public, ok := k.(ed25519.PublicKey)
	if !ok {
		return nil, fault.Errorf(fault.Usage, "the key for checking signatures is not an ed25519 key; %s, from an ed25519 key", makePublic)
	}
	return public, nil
}

// ID names the set of keys that are trusted, whatever their order; "" where everybody is.
func (k *Keys) ID() string {
	trusted := k.trusted()
	if len(trusted) == 0 {
		return ""
	}
	names := make([]string, len(trusted))
	for i, p := range trusted {
		names[i] = fingerprint(p)
	}
	slices.Sort(names)
	return key.New("catalog trust").Strs(slices.Compact(names)).Sum().Hex()[:32]
}

// fingerprint names one key.
func fingerprint(p ed25519.PublicKey) string {
	return key.New("catalog key").Raw(p).Sum().Hex()[:32]
}

func (k *Keys) trusted() []ed25519.PublicKey {
	if k == nil {
		return nil
	}
	trusted := slices.Clone(k.Verify)
	if k.Sign != nil {
		trusted = append(trusted, k.Sign.Public().(ed25519.PublicKey))
	}
	return trusted
}

// sign gives the signature of a page and the name of the key. The page itself says repository, scope, sequence and time.
func (k *Keys) sign(page digest.Digest) (signature, by string) {
	b := ed25519.Sign(k.Sign, []byte(signatureDomain+page.String()))
	return base64.StdEncoding.EncodeToString(b), fingerprint(k.Sign.Public().(ed25519.PublicKey))
}

// signer tells which trusted key signed a page; "" for none.
func (k *Keys) signer(page digest.Digest, signature string) string {
	b, err := base64.StdEncoding.DecodeString(signature)
	if err != nil || len(b) != ed25519.SignatureSize {
		return ""
	}
	for _, p := range k.trusted() {
		if len(p) == ed25519.PublicKeySize && ed25519.Verify(p, []byte(signatureDomain+page.String()), b) {
			return fingerprint(p)
		}
	}
	return ""
}
