package tree

import (
	"strings"
	"testing"
)

// sketch makes a layer tree of text: letters are files, "-x" is a whiteout, "d{x y}" a directory, "d!{}" an opaque and "d?{}" an
// implied one. All directories have the given mode.
func sketch(t *testing.T, mode uint32, text string) *Node {
	t.Helper()
	var dir func() *Node
	dir = func() *Node {
		var entries []Entry
		for text != "" && text[0] != '}' {
			var n *Node
			name, after := text[:1], strings.TrimLeft(text[1:], "!?")
			switch {
			case name == " ":
				text = text[1:]
				continue
			case name == "-":
				name, n, text = text[1:2], &Node{Kind: Whiteout}, text[2:]
			case strings.HasPrefix(after, "{"):
				flags := text[1 : len(text)-len(after)]
				text = after[1:]
				n = dir()
				n.Opaque, n.Implied = strings.Contains(flags, "!"), strings.Contains(flags, "?")
				text = strings.TrimPrefix(text, "}")
			default:
				n, text = &Node{Kind: File}, text[1:]
			}
			entries = append(entries, Entry{name, n})
		}
		d, err := NewDir(Meta{Mode: mode}, false, entries)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	return dir()
}

// sketched is what sketch made, with "u" behind directories that have the upper layer's mode.
func sketched(t *testing.T, n *Node) string {
	t.Helper()
	entries, err := n.Entries()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		switch e.Node.Kind {
		case Whiteout:
			out = append(out, "-"+e.Name)
		case Dir:
			flags := map[bool]string{e.Node.Opaque: "!"}[true] + map[bool]string{e.Node.Implied: "?"}[true] + map[bool]string{e.Node.Mode == ofUpper: "u"}[true]
			out = append(out, e.Name+flags+"{"+sketched(t, e.Node)+"}")
		default:
			out = append(out, e.Name)
		}
	}
	return strings.Join(out, " ")
}

const ofLower, ofUpper = 0o755, 0o700

func TestComposeRules(t *testing.T) {
	for _, c := range []struct{ name, lower, upper, want string }{
		{"beside each other", "a d{x}", "b d{y}", "a b du{x y}"},
		{"a file over a file", "d{x}", "d{x}", "du{x}"},
		{"a file over a directory", "d{x}", "d", "d"},
		{"a directory over a file", "d", "d{x}", "d!u{x}"},
		{"a directory over a whiteout", "-d", "d{x}", "d!u{x}"},
		{"an implied directory over a whiteout", "-d", "d?{x}", "d!?u{x}"},
		{"a whiteout over anything", "d{x} e -f", "-d -e -f -g", "-d -e -f -g"},
		{"a file over a whiteout", "-e", "e", "e"},
		{"an opaque directory over one", "d{x}", "d!{y}", "d!u{y}"},
		{"an opaque directory over an opaque one", "d!{x}", "d!{y}", "d!u{y}"},
		{"a directory over an opaque one", "d!{x y}", "d{-x z}", "d!u{y z}"},
		{"an empty directory over an opaque one", "d!{x y}", "d{}", "d!u{x y}"},
		{"below an opaque directory", "d!{e f{x y} -g}", "d{e{x} f{-x} -h}", "d!u{eu{x} fu{y}}"},
		{"an implied directory over one", "d{x}", "d?{y}", "d{x y}"},
		{"an implied directory over an empty one", "d{}", "d?{y}", "d{y}"},
		{"an implied directory over an opaque one", "d!{x}", "d?{y}", "d!{x y}"},
		{"an implied directory over an implied one", "d?{x}", "d?{y}", "d?{x y}"},
		{"a directory over an implied one", "d?{x}", "d{y}", "du{x y}"},
		{"an implied directory over nothing", "x", "d?{y}", "d?u{y} x"},
		{"nothing over an implied directory", "d?{y}", "x", "d?{y} x"},
		{"whiteouts in a new directory", "d", "d{-x y e!{-z}}", "d!u{eu{} y}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Compose(sketch(t, ofLower, c.lower), sketch(t, ofUpper, c.upper))
			if err != nil {
				t.Fatal(err)
			}
			if got := sketched(t, got); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// TestComposeShares: what only one layer has a say in is not copied, and its remembered digest not lost.
func TestComposeShares(t *testing.T) {
	big := sketch(t, ofLower, "x{a} y!{b} z?{-c}")
	dirs, err := big.Entries()
	if err != nil {
		t.Fatal(err)
	}
	identity(t, big)
	in := func(name string, n *Node) *Node {
		return newSorted(&Node{Meta: Meta{Mode: ofLower}}, []Entry{{name, n}})
	}
	same := func(what string, lower, upper *Node, of func(root *Node) *dirData) {
		t.Helper()
		got, err := Compose(lower, upper)
		if err != nil {
			t.Fatal(err)
		}
		if of(got) != big.dir {
			t.Errorf("%s was copied", what)
		}
	}
	below := func(name string) func(*Node) *dirData {
		return func(root *Node) *dirData {
			n, err := root.Lookup(name)
			if err != nil || n == nil {
				t.Fatal(n, err)
			}
			return n.dir
		}
	}
	self := func(root *Node) *dirData { return root.dir }
	empty := sketch(t, ofUpper, "")
	same("a lower layer under an empty one", big, empty, self)
	same("an upper layer over an empty one", empty, big, self)
	same("a layer over itself", big, big.WithMeta(Meta{}), self)
	same("a directory of the lower layer", in("d", big), sketch(t, ofUpper, "e{f}"), below("d"))
	same("a directory of the upper layer", sketch(t, ofUpper, "e{f}"), in("d", big), below("d"))
	same("a directory that upper only leads to", in("d", big), sketch(t, ofUpper, "d{}"), below("d"))
	same("an opaque directory that upper only leads to", in("d", big.WithOpaque(true)), sketch(t, ofUpper, "d{}"), below("d"))
	same("an opaque directory", in("d", sketch(t, ofLower, "q")), in("d", big.WithOpaque(true)), below("d"))
	if got, err := Compose(big, empty.WithMeta(big.Meta)); err != nil || got == big {
		t.Errorf("%v: upper's root counts", err)
	}
	plain := in("d", dirs[0].Node)
	if got, err := Compose(sketch(t, ofLower, "d"), plain); err != nil || below("d")(got) != dirs[0].Node.dir {
		t.Errorf("%v: a directory in place of a file was copied", err)
	}
	got, err := Compose(big.WithOpaque(true), big)
	if err != nil || !got.Opaque || got.dir != big.dir {
		t.Errorf("%v: what lies over an opaque directory with the same listing is not", err)
	}
}
