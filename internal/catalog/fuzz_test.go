package catalog

import (
	"context"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// FuzzPage reads pages that somebody else wrote. Whatever is accepted keeps within the bounds, can be merged and divided, and is the
// same after writing and reading.
func FuzzPage(f *testing.F) {
	some := steps("s", "x", 1)
	some.Mounts = []MountPut{{Mount: bigMount("m", 2, 2, epoch)}}
	good := newPage("main", epoch, merge(newState(), some, nil, epoch))
	good.Repository, good.Sequence = "registry.example/app", 7
	good.Pages = []pageRef{{Tag: pagePrefix(mainScope.Tag) + "0123456789ab", Blob: blobOf(descOf("page", pageMediaType))}}
	good.Retired = []retirement{{Tag: pagePrefix(mainScope.Tag) + "0123456789ac", Since: epoch}}
	packed, err := good.encode()
	if err != nil {
		f.Fatal(err)
	}
	dec, err := firstDecoder()
	if err != nil {
		f.Fatal(err)
	}
	plain, err := dec.DecodeAll(packed, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain, false)
	f.Add(packed, true)
	f.Add([]byte(`{"version":1,"records":[{"record":null}]}`), false)
	f.Add([]byte(`{"version":1,"sequence":18446744073709551615}`), false)
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte, isPacked bool) {
		if !isPacked {
			b = enc.EncodeAll(b, nil)
		}
		p, err := decodeFirst(b)
		if err != nil {
			return
		}
		s := p.state()
		if len(s.records) > maxRecords || len(s.mounts) > maxMounts || len(p.Pages) > maxPages {
			t.Fatal("out of bounds")
		}
		again, err := newPage(p.Scope, p.Time, s).encode()
		if err != nil {
			t.Fatal(err)
		}
		q, err := decodeFirst(again)
		if err != nil {
			t.Fatalf("written and not read: %v", err)
		}
		if !same(q.state(), s) {
			t.Fatal("written and read, it is another")
		}
		c := steps("s", "y", 2)
		for _, m := range s.mounts {
			c.Mounts = append(c.Mounts, MountPut{Mount: bigMount("m", 1, 1, epoch)}, MountPut{Mount: m})
		}
		merged := merge(s, c, nil, epoch)
		for _, m := range merged.mounts {
			if err := m.check(); err != nil {
				t.Fatalf("merged: %v", err)
			}
		}
		lay(merged, []oldPage{{pageRef{}, s}}, Limits{}.withDefaults(), true, epoch)
	})
}

// FuzzDocument reads documents that somebody else wrote, whose page is good.
func FuzzDocument(f *testing.F) {
	p := newPage("main", epoch, merge(newState(), steps("s", "x", 1), nil, epoch))
	p.Repository = "registry.example/app"
	blob, err := p.encode()
	if err != nil {
		f.Fatal(err)
	}
	for _, inline := range []int{0, 1 << 20} {
		doc, _, err := makeDocument(blob, p.state().blobs(), inline, nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(doc)
	}
	m := newMemory(p.Repository)
	m.blobs[digest.FromBytes(blob)] = blob
	f.Fuzz(func(t *testing.T, doc []byte) {
		m.docs[mainScope.Tag] = doc
		c, err := Load(context.Background(), m, mainScope, Options{})
		if err != nil {
			return
		}
		if n := len(c.Entries(context.Background())); n != 1 {
			t.Fatalf("%d records", n)
		}
	})
}
