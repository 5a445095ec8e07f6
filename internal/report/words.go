package report

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/docker/go-units"
)

// most is how many files, or other names, a sentence lists.
const most = 3

// list writes the first names of a list, and how many more there are: "a", "a and b", "a, b and c", "a, b, c and 4 more".
func list(names []string) string {
	end := ""
	switch n := len(names); {
	case n == 0:
		return ""
	case n > most:
		names, end = names[:most], fmt.Sprintf("%d more", n-most)
	case n > 1:
		names, end = names[:n-1], names[n-1]
	}
	if end == "" {
		return names[0]
	}
	return strings.Join(names, ", ") + " and " + end
}

// shortest is the length to which text that others wrote is cut within a sentence, in characters.
const shortest = 60

func short(s string) string { return cut(clean(s), shortest) }

func cut(s string, most int) string {
	if chars := []rune(s); len(chars) > most {
		return strings.TrimRight(string(chars[:most-3]), " ") + "..."
	}
	return s
}

// clean makes one line without control characters of text that others wrote.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	return strings.Join(strings.FieldsFunc(s, func(c rune) bool { return unicode.IsSpace(c) || !unicode.IsGraphic(c) }), " ")
}

// Quoted gives a path as it can be printed: with escapes where it has control characters, marks that turn the direction of text, or bytes that
// are no text.
func Quoted(path string) string {
	if strings.ContainsFunc(path, func(c rune) bool { return !unicode.IsPrint(c) || c == unicode.ReplacementChar }) {
		return strconv.Quote(path)
	}
	return path
}

// span writes how long something took: "230 ms", "1.4 s", "41 s", "3 min 20 s", "2 h 5 min".
func span(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return "0 ms"
	case d < 999500*time.Microsecond:
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	case d < 9950*time.Millisecond:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 59500*time.Millisecond:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < time.Hour-500*time.Millisecond:
		d = d.Round(time.Second)
		return two(int(d.Minutes()), "min", int(d.Seconds())%60, "s")
	}
	d = d.Round(time.Minute)
	return two(int(d.Hours()), "h", int(d.Minutes())%60, "min")
}

func two(a int, of string, b int, rest string) string {
	if b == 0 {
		return fmt.Sprintf("%d %s", a, of)
	}
	return fmt.Sprintf("%d %s %d %s", a, of, b, rest)
}

// ago writes how long ago a time was; the clock of whoever wrote it may be ahead.
func ago(now, t time.Time) string {
	return strings.ToLower(units.HumanDuration(max(now.Sub(t), 0))) + " ago"
}

// plural writes a number of things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
