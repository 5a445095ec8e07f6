package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestParseCase(t *testing.T) {
	c, err := parseCase("x", []byte("# about\nargs: --target a --build-arg \"A=b c\"\nfail: (?i)no\nmode: 0755 f g\n"+
		"file: \"odd\\n\" text\nskip-issue: 7\n-- Dockerfile --\nFROM scratch\n"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"--target", "a", "--build-arg", "A=b c"}; !slices.Equal(c.args, want) {
		t.Errorf("args %q, want %q", c.args, want)
	}
	if !c.fail.MatchString("NO") || c.skipIssue != 7 || len(c.files) != 1 || len(c.setup) != 2 || c.setup[1].args[0] != "odd\n" {
		t.Errorf("parsed as %+v", c)
	}
	for _, bad := range []string{"nonsense\n", "nosuch: x\n", "mode: 0755\n", "fail: (\n", "args: \"open\n", "args:\n", "skip-issue: x\n"} {
		if _, err := parseCase("x", []byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// Every case of the corpus parses and says what it is about or what it must fail with; the corpus has the promised size.
func TestCorpus(t *testing.T) {
	cases, err := parseCases("testdata", regexp.MustCompile(""))
	if err != nil {
		t.Fatal(err)
	}
	counted := 0
	for _, c := range cases {
		if c.skipIssue == 0 {
			counted++
		}
		if _, err := buildctlFlags(c.args); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		data, err := os.ReadFile(filepath.Join("testdata", c.name+".txtar"))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(data), "#") && c.fail == nil {
			t.Errorf("%s does not begin with what it is about", c.name)
		}
	}
	if counted < 75 {
		t.Errorf("%d cases count, at least 75 must", counted)
	}
}

func TestBuildctlFlags(t *testing.T) {
	got, err := buildctlFlags([]string{"--target=x", "--build-arg", "A=b=c", "--add-host", "h:1.2.3.4", "--add-host=six:::1",
		"--build-context", "d=/dir", "--build-context", "i=docker-image://x", "--no-cache", "--secret", "id=s,src=f"})
	if err != nil {
		t.Fatal(err)
	}
	want := "--opt target=x --opt build-arg:A=b=c --local d=/dir --opt context:d=local:d --opt context:i=docker-image://x " +
		"--no-cache --secret id=s,src=f --opt add-hosts=h=1.2.3.4,six=::1"
	if strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
	for _, bad := range [][]string{{"--nosuch", "x"}, {"--target"}} {
		if _, err := buildctlFlags(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestPrepareStaysInside(t *testing.T) {
	w := workdir{dir: t.TempDir()}
	for name, ok := range map[string]bool{"f": true, "../beside": true, "a/../../beside": true, "../../out": false, "/f": true} {
		if _, err := w.path(name); (err == nil) != ok {
			t.Errorf("%q: error %v", name, err)
		}
	}
}

func TestJudge(t *testing.T) {
	diff := []string{"differs"}
	if len(judge(&testCase{}, nil)) != 0 || len(judge(&testCase{}, diff)) != 1 {
		t.Error("an ordinary case must pass without differences and fail with one")
	}
	if len(judge(&testCase{bug: "x"}, diff)) != 0 || len(judge(&testCase{bug: "x"}, nil)) != 1 {
		t.Error("a case with a known fault must pass with a difference and fail without one")
	}
}
