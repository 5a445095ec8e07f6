package fileop

import (
	"encoding/binary"
	"hash/crc32"
	"testing"

	"larder/internal/tree"
)

func FuzzResolution(f *testing.F) {
	r := &Resolution{Probes: []Probe{{Path: "a", Node: &tree.Node{Kind: tree.File}, HasContent: true}, {Path: "b"}, {Path: "", Node: tree.Empty(), Listed: true, Names: []string{"a"}}},
		Owners: []Owner{{Name: "x", UID: 3}}}
	r.sort()
	b, _ := r.MarshalBinary()
	f.Add(b[len(resolutionHeader) : len(b)-4])
	f.Fuzz(func(t *testing.T, body []byte) {
		b := append([]byte(resolutionHeader), body...) // with a checksum that fits, or nothing would be parsed
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
		var got Resolution
		if got.UnmarshalBinary(b) != nil {
			return
		}
		again, err := got.MarshalBinary()
		var back Resolution
		if err != nil || back.UnmarshalBinary(again) != nil || back.Digest() != got.Digest() {
			t.Fatal("what was accepted does not survive")
		}
	})
}
