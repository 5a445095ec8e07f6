package main

import (
	"strings"
	"testing"
)

func TestGate(t *testing.T) {
	const (
		pass = `{"Action":"output","Package":"p","Test":"TestA","Output":"noise\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}
`
		skip = `{"Action":"output","Package":"p","Test":"TestB","Output":"needs the moon\n"}
{"Action":"skip","Package":"p","Test":"TestB","Elapsed":0}
`
		fail = `{"Action":"output","Package":"p","Test":"TestC","Output":"it broke\n"}
{"Action":"fail","Package":"p","Test":"TestC","Elapsed":0}
`
		ok = `{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.2s\n"}
{"Action":"pass","Package":"p","Elapsed":0.2}
`
		failed = `{"Action":"output","Package":"p","Output":"panic: oh\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.2s\n"}
{"Action":"fail","Package":"p","Elapsed":0.2}
`
	)
	for _, c := range []struct {
		name, in, err string
		want, not     string
	}{
		{"all pass", pass + ok, "", "ok  \tp\t0.2s\n1 passed, 0 failed, 0 skipped\n", "noise"},
		{"allowed skip", pass + strings.ReplaceAll(skip, "TestB", "TestMoon") + ok, "", "1 passed, 0 failed, 1 skipped", "moon"},
		{"other skip", pass + skip + ok, "1 tests were skipped", "needs the moon", ""},
		{"failure", pass + fail + failed, "1 tests failed", "it broke", "noise"},
		{"panic", pass + failed, "0 tests failed", "panic: oh", ""},
		{"nothing", ok, "no test ran", "", ""},
		{"build error", `{"Action":"build-output","ImportPath":"p","Output":"x.go:1: bad\n"}` + "\n" + `{"Action":"build-fail","ImportPath":"p"}`, "0 tests failed", "x.go:1: bad", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			err := gate(strings.NewReader(c.in), &out, map[testName]bool{{"p", "TestMoon"}: true})
			if got := errText(err); got != c.err {
				t.Errorf("error %q, want %q", got, c.err)
			}
			if !strings.Contains(out.String(), c.want) {
				t.Errorf("output lacks %q:\n%s", c.want, out.String())
			}
			if c.not != "" && strings.Contains(out.String(), c.not) {
				t.Errorf("output has %q:\n%s", c.not, out.String())
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
