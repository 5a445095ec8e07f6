package context

import (
	"strings"
	"testing"

	"github.com/moby/patternmatcher"
	"pgregory.net/rapid"
)

// TestPatternListAgreesWithMatcher walks down random paths, and compares with the matcher asked at every step.
func TestPatternListAgreesWithMatcher(t *testing.T) {
	odd := append([]string{"a\nb", "\xff", "a\xfe", "\ufeffa", "*\xff", "**a", "a**", "***", "**/**", "$", "(a|b)", "a.", "^", "[^a]", "{a}", "\\*", "a\\", "\\d", "a{2}*", "a{0}b*", "*|x", "\\Qa*", "a|b", "+", "*a+"}, segments...)
	pattern := rapid.Custom(func(t *rapid.T) string {
		p := strings.Join(rapid.SliceOfN(rapid.SampledFrom(odd), 1, 3).Draw(t, "segments"), "/")
		return rapid.SampledFrom([]string{"", "", "!", "/"}).Draw(t, "before") + p
	})
	component := rapid.SampledFrom(append([]string{"a\nb", "\xff", "a\xfe", "\ufeffa", "\ufffd", "$", "(a|b)", "a.", "^", "{a}", "*", "aa", "1", "x", "+", "aab"}, names...))
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(pattern, 1, 5).Draw(t, "patterns")
		want, err := patternmatcher.New(list)
		got, gotErr := newPatternList(list, false)
		if (err != nil) != (gotErr != nil) {
			t.Fatalf("%v, matcher's %v", gotErr, err)
		}
		if err != nil {
			return
		}
		var info patternmatcher.MatchInfo
		var standing standing
		path := ""
		for _, name := range rapid.SliceOfN(component, 1, 5).Draw(t, "path") {
			path = join(path, name)
			var ok, wantOK bool
			wantOK, info, err = want.MatchesUsingParentResults(path, info)
			ok, gotErr = got.match(path, standing, &standing)
			if ok != wantOK || (err != nil) != (gotErr != nil) {
				t.Fatalf("%q: %v %v, matcher's %v %v", path, ok, gotErr, wantOK, err)
			}
			if err != nil {
				return
			}
		}
	})
}
