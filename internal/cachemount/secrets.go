package cachemount

import (
	"bytes"
	"io"
	"strings"

	"larder/internal/tree"
)

// minSecret is how many bytes a value has at least that is looked for: shorter ones are found by chance.
const minSecret = 8

// secrets are values that must not be saved.
type secrets struct {
	values  [][]byte
	longest int
}

// secretsOf leaves out short values and the white space around others: a token's file ends its line, the tool that uses it does not.
func secretsOf(values [][]byte) *secrets {
	s := &secrets{}
	for _, v := range values {
		if v = bytes.TrimSpace(v); len(v) >= minSecret {
			s.values = append(s.values, v)
			s.longest = max(s.longest, len(v))
		}
	}
	return s
}

func (s *secrets) none() bool { return len(s.values) == 0 }

func (s *secrets) in(b []byte) bool {
	for _, v := range s.values {
		if bytes.Contains(b, v) {
			return true
		}
	}
	return false
}

// inNode looks into what a node says besides its contents.
func (s *secrets) inNode(n *tree.Node) bool {
	if s.in([]byte(n.Link)) {
		return true
	}
	for _, x := range n.Xattrs {
		if s.in(x.Value) || s.in([]byte(x.Name)) {
			return true
		}
	}
	return false
}

// hide makes a path fit to be shown.
func (s *secrets) hide(path string) string {
	for _, v := range s.values {
		path = strings.ReplaceAll(path, string(v), "***")
	}
	return path
}

// inReader looks for them in all that r yields, through a buffer that the caller keeps. What lies across the border of two reads
// is found as well.
func (s *secrets) inReader(r io.Reader, buf *[]byte) (bool, error) {
	if want := s.longest + secretChunk; len(*buf) < want {
		*buf = make([]byte, want)
	}
	kept := 0
	for {
		n, err := io.ReadFull(r, (*buf)[kept:])
		all := (*buf)[:kept+n]
		if s.in(all) {
			return true, nil
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		kept = copy(*buf, all[len(all)-(s.longest-1):])
	}
}

// secretChunk is how much is searched at a time.
const secretChunk = 256 << 10
