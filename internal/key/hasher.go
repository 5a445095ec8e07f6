package key

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
)

// Hasher builds a key from fields. Every field that varies in length is written with it, so two different sequences of
// fields of the same kinds never hash alike, and every Hasher starts with a domain, so a key of one kind never equals one of
// another. The domain fixes which kinds of fields follow, and names a version ("larder.copy.v1"): whoever changes what a
// key means changes it.
// A Hasher is not safe for concurrent use.
type Hasher struct {
	h   hash.Hash
	buf [binary.MaxVarintLen64]byte
}

// New starts a key in the given domain.
func New(domain string) *Hasher {
	k := &Hasher{h: sha256.New()}
	return k.Str(domain)
}

// Uint adds a number.
func (k *Hasher) Uint(v uint64) *Hasher {
	n := binary.PutUvarint(k.buf[:], v)
	k.h.Write(k.buf[:n])
	return k
}

// Int adds a number that may be negative.
func (k *Hasher) Int(v int64) *Hasher {
	n := binary.PutVarint(k.buf[:], v)
	k.h.Write(k.buf[:n])
	return k
}

// Bool adds a truth value.
func (k *Hasher) Bool(v bool) *Hasher {
	if v {
		return k.Uint(1)
	}
	return k.Uint(0)
}

// Str adds a string with its length.
func (k *Hasher) Str(s string) *Hasher {
	k.Uint(uint64(len(s)))
	io.WriteString(k.h, s)
	return k
}

// Raw adds bytes with their length.
func (k *Hasher) Raw(b []byte) *Hasher {
	k.Uint(uint64(len(b)))
	k.h.Write(b)
	return k
}

// Strs adds a list of strings with its length; the order counts.
func (k *Hasher) Strs(list []string) *Hasher {
	k.Uint(uint64(len(list)))
	for _, s := range list {
		k.Str(s)
	}
	return k
}

// Digest adds another digest.
func (k *Hasher) Digest(d Digest) *Hasher {
	k.h.Write(d[:])
	return k
}

// Digests adds a list of digests with its length; the order counts.
func (k *Hasher) Digests(list []Digest) *Hasher {
	k.Uint(uint64(len(list)))
	for _, d := range list {
		k.Digest(d)
	}
	return k
}

// Sum ends the key. More fields may be added afterwards for a longer key.
func (k *Hasher) Sum() Digest {
	var d Digest
	k.h.Sum(d[:0])
	return d
}
