package cacheref

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"larder/internal/fault"
)

var update = flag.Bool("update", false, "write the golden files anew")

// describe gives all that a Ref says, in one line.
func describe(r Ref) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", r.Type)
	put := func(on bool, format string, args ...any) {
		if on {
			fmt.Fprintf(&b, " "+format, args...)
		}
	}
	put(r.Type == Registry, "%s", r.Repository)
	put(r.Dir != "", "%s", r.Dir)
	put(r.Attrs != nil, "%v", r.Attrs)
	put(r.Tag != "", "tag=%s", r.Tag)
	put(r.Max, "max")
	put(r.Insecure, "insecure")
	put(r.IgnoreError, "ignore-error")
	put(r.Compression != nil, "compression=%v", r.Compression)
	put(r.Level != nil, "level=%d", deref(r.Level))
	fmt.Fprintf(&b, " | %s", r.Text)
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "\n    note: %s", n)
	}
	return b.String()
}

func deref(n *int) int {
	if n == nil {
		return 0
	}
	return *n
}

// TestGolden parses each line of testdata/*.txt and compares what comes out, errors included. A file's name is the flag's. A
// line of input begins with "> "; what was written there by hand is the input alone (go test -update writes the rest).
func TestGolden(t *testing.T) {
	t.Chdir("/")
	for name, parse := range map[string]func(string) ([]Ref, error){
		"cache":      func(s string) ([]Ref, error) { r, err := ParseCache(s); return []Ref{r}, err },
		"cache-from": func(s string) ([]Ref, error) { return ParseFrom([]string{s}) },
		"cache-to":   func(s string) ([]Ref, error) { return ParseTo([]string{s}) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(testdata, name+".txt")
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for line := range strings.Lines(string(want)) {
				input, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "> ")
				switch {
				case ok:
					got.WriteString(line)
					refs, err := parse(input)
					if err != nil {
						fmt.Fprintf(&got, "  error: %v\n", err)
						if fault.Of(err) != fault.Usage {
							t.Errorf("%s: kind %v", input, fault.Of(err))
						}
						continue
					}
					for _, r := range refs {
						fmt.Fprintf(&got, "  %s\n", describe(r))
					}
				case strings.HasPrefix(line, "#") || line == "\n":
					got.WriteString(line)
				}
			}
			if *update {
				if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got.String() != string(want) {
				t.Errorf("%s differs:\n%s", path, got.String())
			}
		})
	}
}

// testdata is absolute, because the test changes the directory.
var testdata = func() string {
	dir, err := filepath.Abs("testdata")
	if err != nil {
		panic(err)
	}
	return dir
}()

// TestNoCredentials puts a secret where credentials go, and where people put them by mistake: no text may show any part of it.
func TestNoCredentials(t *testing.T) {
	for _, line := range []string{
		"type=s3,bucket=b,region=r,access_key_id=SECRET1,secret_access_key=SECRET2,session_token=SECRET3",
		"type=s3,bucket=b,secret_access_key=SECRET1,SECRET2",
		"type=s3,bucket=b,secret_access_key=SECRET1,SECRET2=SECRET3",
		"type=s3,bucket=b,mode=wrong,name=$,secret_access_key=SECRET1",
		"type=s3,name=,secret_access_key=SECRET1",
		`type=s3,"secret_access_key=SECRET1`,
		`type=s3,secret_access_key="SECRET1`,
		"type=s3,bucket=b,endpoint_url=https://user:SECRET1@minio.example:9000",
		"type=gha,token=SECRET1,url=https://x",
		"type=azblob,account_url=https://SECRET1@x,secret_access_key=SECRET2",
		"type=registry,ref=user:SECRET1@registry.example/app:cache",
		"type=registry,ref=https://user:SECRET1@registry.example/app,mode=max",
		"type=registry,ref=registry.example/app,password=SECRET1",
		"type=registry,ref=registry.example/app,token=SECRET1,SECRET2",
		"user:SECRET1@registry.example/app",
		"https://user:SECRET1@registry.example/app",
		"user:SECRET1@registry.example/app@sha256:" + strings.Repeat("0", 64),
		"s3://key:SECRET1@bucket/prefix",
		"type=nothing,password=SECRET1",
		"secret_access_key=SECRET1",
	} {
		for _, parse := range []func() ([]Ref, error){
			func() ([]Ref, error) { r, err := ParseCache(line); return []Ref{r}, err },
			func() ([]Ref, error) { return ParseFrom([]string{line}) },
			func() ([]Ref, error) { return ParseTo([]string{line}) },
		} {
			refs, err := parse()
			text := fmt.Sprint(err)
			for _, r := range refs {
				text += r.Text + strings.Join(r.Notes, "")
			}
			if strings.Contains(text, "SECRET") {
				t.Errorf("%s\ngives %s", line, text)
			}
		}
	}
	refs, err := ParseTo([]string{"type=s3,bucket=b,access_key_id=A,secret_access_key=S"})
	if err != nil || refs[0].Attrs["secret_access_key"] != "S" || refs[0].Attrs["access_key_id"] != "A" {
		t.Errorf("credentials have to reach the store: %v, %v", refs, err)
	}
}

func TestSeveralValues(t *testing.T) {
	refs, err := ParseFrom([]string{"", "registry.example/a:1,registry.example/b", " ", "type=registry,ref=registry.example/c:3", "./d"})
	var names []string
	for _, r := range refs {
		names = append(names, r.Text)
	}
	wd, _ := os.Getwd()
	if want := "registry.example/a:1 registry.example/b:latest registry.example/c:3 local:" + wd + "/d"; err != nil || strings.Join(names, " ") != want {
		t.Errorf("%v, %v", names, err)
	}
	if refs, err := ParseTo([]string{"", ""}); err != nil || len(refs) != 0 {
		t.Error(refs, err)
	}
	if _, err := ParseTo([]string{"registry.example/a:1", "type=gha"}); fault.Of(err) != fault.Usage {
		t.Error(err)
	}
	refs, err = ParseTo([]string{"type=s3,bucket=b,reset=1,touch_refresh=1h,name=sha;main"})
	if err != nil || len(refs) != 2 || refs[0].Tag != "sha" || refs[1].Tag != "main" || len(refs[0].Notes) != 1 || len(refs[1].Notes) != 1 {
		t.Error(refs, err)
	}
	if a, b := refs[0].Notes[0], refs[1].Notes[0]; a == b || strings.Count(b, "--cache-to") != 1 {
		t.Errorf("%s\n%s", a, b)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("type=registry,ref=registry.example/app:cache,mode=max")
	f.Add("registry.example/app,localhost:5000/x")
	f.Add(`"type=local,src=/a"`)
	f.Add("s3://bucket/p")
	f.Fuzz(func(t *testing.T, s string) {
		for _, u := range []use{useBoth, useRead, useWrite} {
			refs, err := parse(u, s)
			if err != nil {
				if fault.Of(err) != fault.Usage {
					t.Errorf("%q: %v", s, err)
				}
				continue
			}
			for _, r := range refs {
				complete := map[string]bool{
					Registry: r.Repository.Host != "" && r.Repository.Repo != "" && (r.Repository.Tag != "" || r.Repository.Digest != "") == (u != useBoth),
					Local:    filepath.IsAbs(r.Dir), S3: r.Attrs != nil, Inline: u == useWrite,
				}
				if !complete[r.Type] || r.Text == "" || (r.Tag == "") != (u == useBoth || r.Type == Inline) {
					t.Errorf("%s %q: %+v", u, s, r)
				}
			}
		}
	})
}
