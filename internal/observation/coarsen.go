package observation

import (
	"cmp"
	"container/heap"
	"strings"

	"larder/internal/tree"
)

// coarsen makes directories a Whole until there are at most most looks, or only one.
func coarsen(top *place, most int) error {
	if _, err := top.weigh(); err != nil {
		return err
	}
	most = max(most, 1)
	var q offers
	q.add(top, top.looks-most)
	heap.Init(&q)
	for top.looks > most {
		p := q[0].place
		if p.looks < 2 || p.covered() {
			heap.Pop(&q)
			continue
		}
		// What was collapsed since makes an offer worse, never better.
		if now := p.offer(top.looks - most); now != q[0] {
			q[0] = now
			heap.Fix(&q, 0)
			continue
		}
		heap.Pop(&q)
		p.collapse()
	}
	return top.prune() // what is now a Whole may have been all that a directory above lacked
}

// weigh counts the objects that a Whole of each place would see and that were not looked at.
func (p *place) weigh() (int, error) {
	p.news = 0
	if !p.seen() {
		p.news = 1
	}
	if p.kind == Whole {
		return p.news, nil
	}
	var entries []tree.Entry
	if p.isDir() {
		var err error
		if entries, err = p.node.Entries(); err != nil {
			return 0, err
		}
	}
	below := p.below
	for _, e := range entries {
		for len(below) > 0 && below[0].name() < e.Name {
			below = below[1:]
		}
		if len(below) > 0 && below[0].name() == e.Name {
			continue
		}
		n, err := count(e.Node)
		if err != nil {
			return 0, err
		}
		p.news += n
	}
	for _, c := range p.below {
		n, err := c.weigh()
		if err != nil {
			return 0, err
		}
		p.news += n
	}
	return p.news, nil
}

// count is how many objects a tree has.
func count(n *tree.Node) (int, error) {
	entries, err := n.Entries()
	if err != nil {
		return 0, err
	}
	all := 1
	for _, e := range entries {
		c, err := count(e.Node)
		if err != nil {
			return 0, err
		}
		all += c
	}
	return all, nil
}

// covered reports whether something above was collapsed since.
func (p *place) covered() bool {
	for p = p.above; p != nil; p = p.above {
		if p.kind == Whole {
			return true
		}
	}
	return false
}

// collapse makes p a Whole.
func (p *place) collapse() {
	spared, news := p.looks-1, p.news
	p.kind, p.below = Whole, nil
	for ; p != nil; p = p.above {
		p.looks -= spared
		p.news -= news
	}
}

// offer is what a place would cost as a Whole, and what it would spare of what has to be.
type offer struct {
	place         *place
	spared, costs int
}

func (p *place) offer(need int) offer { return offer{p, min(p.looks-1, need), p.news} }

// offers is a heap, the best at the top.
type offers []offer

// add offers p and what is below it.
func (q *offers) add(p *place, need int) {
	if p.looks > 1 {
		*q = append(*q, p.offer(need))
	}
	for _, c := range p.below {
		q.add(c, need)
	}
}

func (q offers) Len() int { return len(q) }

// Less compares the costs of each look that has to be spared, then how many are, then paths: equal looks give equal results.
func (q offers) Less(i, j int) bool {
	a, b := q[i], q[j]
	return cmp.Or(cmp.Compare(a.costs*b.spared, b.costs*a.spared), cmp.Compare(b.spared, a.spared),
		strings.Compare(a.place.path, b.place.path)) < 0
}

func (q offers) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *offers) Push(x any)   { *q = append(*q, x.(offer)) }

func (q *offers) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}
