package catalog

import (
	"bytes"

	"larder/internal/key"
	"larder/internal/record"
)

// maxUnited is how many digests a list that several builds add to has at most.
const maxUnited = 8

// isHint tells a record that only says what nobody need believe.
func isHint(r *record.Record) bool { return len(r.Hint) > 0 && len(r.Outputs) == 0 && len(r.Data) == 0 }

// UniteHints makes one list of two lists of digests, 32 bytes each, those of near first, each once. The last ones are dropped where
// they are too many. What is no such list counts as an empty one.
func UniteHints(near, far []byte) []byte {
	var out []byte
	for _, list := range [][]byte{near, far} {
		if len(list)%key.Size != 0 {
			continue
		}
		for ; len(list) > 0 && len(out) < maxUnited*key.Size; list = list[key.Size:] {
			if !listed(out, list[:key.Size]) {
				out = append(out, list[:key.Size]...)
			}
		}
	}
	return out
}

func listed(list, digest []byte) bool {
	for ; len(list) >= key.Size; list = list[key.Size:] {
		if bytes.Equal(list[:key.Size], digest) {
			return true
		}
	}
	return false
}
