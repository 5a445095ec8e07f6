package report

import (
	"fmt"
	"slices"
	"strings"

	"larder/internal/key"
	"larder/internal/tree"
)

// opener opens a stored tree; nil where it is not to be had.
type opener func(key.Digest) *tree.Node

func (o opener) tree(l Layer) *tree.Node {
	switch {
	case l.Root != nil:
		return l.Root
	case l.Tree.IsZero() || o == nil:
		return nil
	}
	return o(l.Tree)
}

// once makes an opener that opens each tree once.
func once(files opener) opener {
	if files == nil {
		return nil
	}
	opened := map[key.Digest]*tree.Node{}
	return func(d key.Digest) *tree.Node {
		n, ok := opened[d]
		if !ok {
			n = files(d)
			opened[d] = n
		}
		return n
	}
}

// maxStack is how many layers of an input are compared; no kernel stacks more.
const maxStack = 1000

// placed is a layer in the stack of an input.
type placed struct {
	Layer
	group    int
	observed bool
	key      string // what names the step that made it, wherever it stands
}

// stack lists the layers of an input: those of its base image, and the rest.
func stack(in Input) (base, rest []placed) {
	for i, g := range in.Groups {
		for _, l := range g.Layers {
			if len(base)+len(rest) == maxStack {
				return base, rest
			}
			t := parseName(l.Step)
			p := placed{l, i, g.Observed, t.stage + "\x00" + withoutDigest(t.command)}
			if l.Image != "" && !g.Observed && len(rest) == 0 { // a mount of a part of an image is observed
				base = append(base, p)
			} else {
				rest = append(rest, p)
			}
		}
	}
	return base, rest
}

// shape is what an input's layers are made by, the bottom one first. Where looks count, an observed group is one nameless thing.
func shape(rest []placed, looks bool) []string {
	var out []string
	last := -1
	for _, p := range rest {
		switch {
		case !looks || !p.observed:
			out = append(out, p.key)
		case p.group != last:
			out = append(out, "")
		}
		last = p.group
	}
	return out
}

// looked tells whether it is known what the step looked at in each observed group of an earlier input, so that nothing else of
// those counts.
func looked(in Input) bool {
	return !slices.ContainsFunc(in.Groups, func(g Group) bool { return g.Observed && g.Seen == nil })
}

// inputs says what changed in one input of a step.
func (c *comparison) input(was, is Input) {
	wasBase, wasRest := stack(was)
	isBase, isRest := stack(is)
	moved := c.base(is.Place, wasBase, isBase)
	looks := c.last.Not == "" && c.now.Not == "" && looked(was)
	switch {
	case looks && slices.Equal(shape(wasRest, true), shape(isRest, true)):
		c.looks(was, is)
	case slices.Equal(shape(wasRest, false), shape(isRest, false)):
		looks = false
	default:
		moved = c.shape(wasRest, isRest, looks) || moved
	}
	for _, p := range pairs(wasRest, isRest) {
		a, b := wasRest[p[0]], isRest[p[1]]
		if a.Identity == b.Identity || looks && b.observed {
			continue
		}
		if !runsCommand(b.Step) {
			c.layer(is, a, b)
		} else if !moved { // else it is no wonder
			c.before(b)
			moved = true // what stands on it follows from it
		}
	}
}

func (c *comparison) before(l placed) {
	c.add(Cause{Kind: Before, Text: l.subject() + " made another layer"})
}

// base compares base images, and tells whether they differ.
func (c *comparison) base(place string, was, is []placed) bool {
	a, b := image(was), image(is)
	same := slices.EqualFunc(was, is, func(x, y placed) bool { return x.Identity == y.Identity })
	brought := func(v Cause) bool { return v.Kind == Variable && strings.Contains(v.Text, "ENV ") } // by the image's config
	if same && (a == b || !slices.ContainsFunc(c.recipe, brought)) {
		return false
	}
	c.add(Cause{Kind: Base, Text: baseChange(place, a, b)})
	return true
}

func image(base []placed) string {
	if len(base) == 0 {
		return ""
	}
	return base[0].Image
}

// baseChange compares two references to images, with their digests.
func baseChange(place, was, is string) string {
	wasName, wasDigest, _ := strings.Cut(was, "@")
	isName, isDigest, _ := strings.Cut(is, "@")
	switch at := place != "/" && place != ""; {
	case wasName != isName && at:
		return fmt.Sprintf("image %s became %s at %s", imageName(wasName), imageName(isName), Quoted(place))
	case wasName != isName:
		return fmt.Sprintf("FROM %s became %s", imageName(wasName), imageName(isName))
	case at:
		return fmt.Sprintf("image %s at %s %s", imageName(isName), Quoted(place), move(wasDigest, isDigest))
	}
	return fmt.Sprintf("base image %s %s", imageName(isName), move(wasDigest, isDigest))
}

func move(was, is string) string {
	if was == "" || is == "" || was == is {
		return "is another one"
	}
	return fmt.Sprintf("moved from %s to %s", digits(was), digits(is))
}

// digits shortens a digest for people.
func digits(d string) string { return cutAt(d, len("sha256:")+12) }

func cutAt(s string, n int) string { return s[:min(n, len(s))] }

// imageName writes a reference as people do.
func imageName(ref string) string {
	if ref == "" {
		return "scratch"
	}
	ref = strings.TrimPrefix(ref, "docker.io/")
	return clean(strings.TrimPrefix(ref, "library/"))
}

// shape says which steps below were added, removed, changed or moved, and tells whether there were such. Where looks count, those
// whose files are observed matter only if nothing else does.
func (c *comparison) shape(was, is []placed, looks bool) bool {
	var gone, won []placed
	wasLeft, isLeft := leftovers(was, is)
	pick := func(from []placed, left []int, all bool) (out []placed) {
		for _, i := range left {
			if all || !from[i].observed {
				out = append(out, from[i])
			}
		}
		return out
	}
	gone, won = pick(was, wasLeft, !looks), pick(is, isLeft, !looks)
	if len(gone)+len(won) == 0 {
		gone, won = pick(was, wasLeft, true), pick(is, isLeft, true)
	}
	for _, w := range won {
		text := "an earlier step was added: " + w.subject()
		if i := slices.IndexFunc(gone, func(g placed) bool { return g.key == w.key }); i >= 0 {
			text = "an earlier step was moved: " + w.subject()
			gone = slices.Delete(gone, i, i+1)
		} else if i := slices.IndexFunc(gone, func(g placed) bool { return became(g, w) }); i >= 0 {
			text = "an earlier step changed: " + w.subject()
			gone = slices.Delete(gone, i, i+1)
		}
		c.add(Cause{Kind: Shape, Text: text})
	}
	for _, g := range gone {
		c.add(Cause{Kind: Shape, Text: "an earlier step was removed: " + g.subject()})
	}
	return len(wasLeft)+len(isLeft) > 0
}

// became tells whether a step that is gone and a new one are likely one step that was edited.
func became(g, w placed) bool {
	was, is := parseName(g.Step), parseName(w.Step)
	if was.stage != is.stage {
		return false
	}
	return was.place == is.place || likeness(g.subject(), w.subject()) > 0.5
}

// pairs aligns two stacks: the longest list of layers that steps of one name made, in the order of both.
func pairs(was, is []placed) [][2]int {
	most := make([][]int, len(was)+1) // of was[i:] and is[j:]
	for i := range most {
		most[i] = make([]int, len(is)+1)
	}
	for i := len(was) - 1; i >= 0; i-- {
		for j := len(is) - 1; j >= 0; j-- {
			if was[i].key == is[j].key {
				most[i][j] = most[i+1][j+1] + 1
			} else {
				most[i][j] = max(most[i+1][j], most[i][j+1])
			}
		}
	}
	var out [][2]int
	for i, j := 0, 0; i < len(was) && j < len(is); {
		switch {
		case was[i].key == is[j].key:
			out = append(out, [2]int{i, j})
			i, j = i+1, j+1
		case most[i+1][j] >= most[i][j+1]:
			i++
		default:
			j++
		}
	}
	return out
}

// leftovers gives the layers that have no partner, by their places.
func leftovers(was, is []placed) (gone, won []int) {
	i, j := 0, 0
	for _, p := range append(pairs(was, is), [2]int{len(was), len(is)}) {
		for ; i < p[0]; i++ {
			gone = append(gone, i)
		}
		for ; j < p[1]; j++ {
			won = append(won, j)
		}
		i, j = p[0]+1, p[1]+1
	}
	return gone, won
}
