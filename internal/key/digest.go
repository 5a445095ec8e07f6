package key

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// Size is the length of a Digest in bytes.
const Size = sha256.Size

// Digest is a sha256 as bytes: half the memory of its text form, comparable, usable as a map key. The zero
// value means "none"; no content hashes to it in practice.
type Digest [Size]byte

// IsZero reports whether d is the zero value, "no digest".
func (d Digest) IsZero() bool { return d == Digest{} }

// String gives the OCI text form, "sha256:" and 64 hexadecimal digits.
func (d Digest) String() string { return "sha256:" + hex.EncodeToString(d[:]) }

// Hex gives the 64 hexadecimal digits alone, for file names.
func (d Digest) Hex() string { return hex.EncodeToString(d[:]) }

// OCI converts d to the type that image manifests use.
func (d Digest) OCI() digest.Digest { return digest.Digest(d.String()) }

// MarshalText writes the OCI text form, and nothing at all for the zero value.
func (d Digest) MarshalText() ([]byte, error) {
	if d.IsZero() {
		return nil, nil
	}
	return []byte(d.String()), nil
}

// UnmarshalText is the reverse of MarshalText.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*d = Digest{}
		return nil
	}
	v, err := Parse(string(text))
	if err != nil {
		return err
	}
	*d = v
	return nil
}

// Parse reads the OCI text form. Only sha256 is known; anything else is an error that quotes at most 80 bytes of s.
func Parse(s string) (Digest, error) {
	var d Digest
	const prefix = "sha256:"
	if len(s) != len(prefix)+2*Size || s[:len(prefix)] != prefix {
		return d, fmt.Errorf("%.80q is no sha256 digest", s)
	}
	if _, err := hex.Decode(d[:], []byte(s[len(prefix):])); err != nil {
		return Digest{}, fmt.Errorf("%.80q is no sha256 digest: %w", s, err)
	}
	return d, nil
}

// FromOCI converts a digest of a manifest or descriptor, under the rules of Parse.
func FromOCI(d digest.Digest) (Digest, error) { return Parse(string(d)) }

// Bytes hashes b.
func Bytes(b []byte) Digest { return sha256.Sum256(b) }
