package pack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	chunkers "github.com/PlakarKorp/go-cdc-chunkers"
	_ "github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc" // registers the algorithm
)

// CutAbove is the size in bytes up to which a file is one piece.
const CutAbove = 4 << 20

// Where large files are cut decides whether two machines, or two versions of larder, find that they have the same pieces: changing
// any of these costs every user one upload. The algorithm's name is that of its published masks for a given normalPiece; the
// unversioned "fastcdc" has those for pieces of 8 KiB whatever it is told.
const (
	algorithm   = "fastcdc-v1.0.0"
	minPiece    = 512 << 10
	normalPiece = 1 << 20
	maxPiece    = 4 << 20
)

const smallFile = 64 << 10

var smallBuffers = sync.Pool{New: func() any { return new([smallFile]byte) }}

// fill reads into buf until it is full or r ends.
func fill(r io.Reader, buf []byte) (n int, ended bool, err error) {
	n, err = io.ReadFull(r, buf)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return n, true, nil
	}
	return n, false, err
}

// cut gives the pieces of head and what follows it in r, in order. A piece is yield's only while it runs; buf has maxPiece bytes.
func cut(head []byte, r io.Reader, buf []byte, yield func([]byte) error) error {
	opt := chunkers.ChunkerOpts{MinSize: minPiece, NormalSize: normalPiece, MaxSize: maxPiece}
	c, err := chunkers.NewChunkerBuffer(algorithm, io.MultiReader(bytes.NewReader(head), r), &opt, buf)
	if err != nil {
		return fmt.Errorf("cut a file: %w", err)
	}
	for {
		data, err := c.Next()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(data) > 0 {
			if err := yield(data); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

// slots are buffers that are made when there is none to be had, so many at most.
type slots struct {
	idle chan []byte
	more chan struct{} // one for each that may yet be made
	size int
}

func newSlots(n, size int) *slots {
	s := &slots{make(chan []byte, n), make(chan struct{}, n), size}
	for range n {
		s.more <- struct{}{}
	}
	return s
}

// take waits for a buffer, or for the end of either context.
func (s *slots) take(ctx, other context.Context) ([]byte, error) {
	select {
	case b := <-s.idle:
		return b, nil
	default:
	}
	select {
	case b := <-s.idle:
		return b, nil
	case <-s.more:
		return make([]byte, s.size), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-other.Done():
		return nil, context.Cause(other)
	}
}

func (s *slots) give(b []byte) { s.idle <- b }
