package report

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// title is the name of a step, taken apart: "[linux/amd64 builder 3/5] RUN npm ci".
type title struct {
	stage   string // "builder"; empty for a stage without a name, and outside of stages
	place   int    // 3, 0 outside of stages
	of      int    // 5
	command string // "RUN npm ci"
}

// unnamed are the stages that got a name only because there are several.
var unnamed = regexp.MustCompile(`^stage-[0-9]+$`)

func parseName(name string) title {
	in, command, ok := strings.Cut(name, "] ")
	fields := strings.Fields(strings.TrimPrefix(in, "["))
	if !ok || !strings.HasPrefix(in, "[") || len(fields) == 0 {
		return title{command: name}
	}
	a, b, _ := strings.Cut(fields[len(fields)-1], "/")
	place, err := strconv.Atoi(a)
	of, err2 := strconv.Atoi(b)
	if err != nil || err2 != nil || place < 1 || of < place {
		return title{command: name}
	}
	t := title{place: place, of: of, command: command}
	fields = fields[:len(fields)-1]
	if len(fields) > 0 && strings.Contains(fields[0], "/") { // a platform: no stage has a slash
		fields = fields[1:]
	}
	if len(fields) > 0 && !unnamed.MatchString(fields[0]) {
		t.stage = fields[0]
	}
	return t
}

// same tells whether two titles name one step, wherever in its stage it stands.
func (t title) same(o title) bool {
	return t.stage == o.stage && (t.place == 0) == (o.place == 0) && withoutDigest(t.command) == withoutDigest(o.command)
}

// withoutDigest takes the digest from a base image's name.
func withoutDigest(s string) string {
	s, _, _ = strings.Cut(s, "@sha256:")
	return s
}

// command is what a step does, as it is compared: of a RUN what stands in the recipe, as the name has the values of variables in it.
func (s *Step) command() string {
	if len(s.Recipe.Args) > 0 {
		return strings.Join(s.Recipe.Args, " ")
	}
	return withoutDigest(parseName(s.Name).command)
}

// script is the command without the shell that reads it.
func (s *Step) script() string {
	if a := s.Recipe.Args; len(a) == 3 && a[1] == "-c" {
		return a[2]
	}
	return s.command()
}

// find gives the place of a step with the same command, the nearest one in its stage; -1 for none.
func (b *Build) find(s *Step) int {
	at := parseName(s.Name)
	best, away := -1, 0
	for i := range b.Steps {
		o := &b.Steps[i]
		t := parseName(o.Name)
		if o.beside(s) && o.command() == s.command() {
			if d := abs(t.place - at.place); best < 0 || d < away {
				best, away = i, d
			}
		}
	}
	return best
}

// beside tells whether two steps are of one sort, in one stage.
func (s *Step) beside(o *Step) bool {
	a, b := parseName(s.Name), parseName(o.Name)
	return s.Type == o.Type && s.Platform == o.Platform && a.stage == b.stage && (a.place == 0) == (b.place == 0)
}

// match finds the step of an earlier build that is now: the same command in the same stage, wherever it stands, or else one like it
// or in its place that is in plan no more. Nil for none.
func (b *Build) match(plan []string, now *Step) *Step {
	if b == nil {
		return nil
	}
	if i := b.find(now); i >= 0 {
		return &b.Steps[i]
	}
	at := parseName(now.Name)
	if at.place == 0 {
		return nil
	}
	var titles []title
	for _, name := range plan {
		titles = append(titles, parseName(name))
	}
	var best *Step
	most := 0.0
	for i := range b.Steps {
		s := &b.Steps[i]
		t := parseName(s.Name)
		if !s.beside(now) || slices.ContainsFunc(titles, t.same) {
			continue
		}
		like := likeness(s.script(), now.script())
		if t.place == at.place && plan != nil { // what stood there is gone, so this is what became of it
			like++
		}
		if like >= 0.5 && like > most {
			best, most = s, like
		}
	}
	return best
}

func abs(n int) int { return max(n, -n) }

// likeness says how much of two commands is the same at their beginnings and ends, between 0 and 1.
func likeness(a, b string) float64 {
	x, y := strings.Fields(a), strings.Fields(b)
	_, was, _ := apart(x, y)
	return float64(len(x)-len(was)) / float64(max(len(x), len(y), 1))
}

// apart gives the number of words that two commands begin with, and what is between those and the ones that they end with.
func apart(was, is []string) (front int, before, now []string) {
	for front < len(was) && front < len(is) && was[front] == is[front] {
		front++
	}
	was, is = was[front:], is[front:]
	for len(was) > 0 && len(is) > 0 && was[len(was)-1] == is[len(is)-1] {
		was, is = was[:len(was)-1], is[:len(is)-1]
	}
	return front, was, is
}

// subject names the step that made a layer in a sentence, with the options that say something to who looks for files.
func subject(name string) string {
	t := parseName(name)
	switch {
	case t.place == 0 && strings.HasPrefix(name, "[internal] load build context"):
		return "the build context"
	case t.place == 0 && strings.HasPrefix(name, "[context "):
		context, _, _ := strings.Cut(strings.TrimPrefix(name, "["), "]")
		return clean(context)
	}
	words := strings.Fields(t.command)
	if len(words) == 0 {
		return "an earlier step"
	}
	out := words[:1:1]
	for i, w := range words[1:] {
		if !strings.HasPrefix(w, "--") {
			out = append(out, words[i+1:]...)
			break
		}
		if strings.HasPrefix(w, "--from=") {
			out = append(out, w)
		}
	}
	return short(strings.Join(out, " "))
}

// subject names a layer in a sentence.
func (l Layer) subject() string {
	if l.Step == "" && l.Image != "" {
		return "image " + imageName(withoutDigest(l.Image))
	}
	return subject(l.Step)
}

// runsCommand tells whether a layer of that step comes from a command, whose files nobody chose one by one.
func runsCommand(name string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(parseName(name).command, "ONBUILD "), " ")
	return first == "RUN"
}
