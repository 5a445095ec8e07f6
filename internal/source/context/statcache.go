package context

import (
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/key"
	"larder/internal/tree"
)

type StatCache struct{ dir string }
type table struct{}
type record struct{}

func (c *StatCache) open(string) *table                        { return nil }
func (c *StatCache) save(string, *table, []record)             {}
func (t *table) find(st *unix.Stat_t) (record, bool)           { return record{}, false }
func (r record) xattrs() bool                                  { return false }
func (r record) digest() key.Digest                            { return key.Digest{} }
func (w *worker) remember(*unix.Stat_t, *tree.Node, time.Time) {}
