package cli

import (
	"slices"
	"testing"

	"larder/internal/build"
)

// TestAddHost reads --add-host in both of its spellings, with addresses that have colons of their own.
func TestAddHost(t *testing.T) {
	for flag, want := range map[string]string{
		"h:10.0.0.9":      "h=10.0.0.9",
		"h=10.0.0.9":      "h=10.0.0.9",
		"six:::1":         "six=::1",
		"six=::1":         "six=::1",
		"six:[fd00::7]":   "six=fd00::7",
		"six=[fd00::7]":   "six=fd00::7",
		"six=fd00::7:1:2": "six=fd00::7:1:2",
	} {
		f, r := buildFlags{addHosts: []string{flag}}, new(build.Request)
		if err := f.limits(r); err != nil || !slices.Equal(r.AddHosts, []string{want}) {
			t.Errorf("--add-host %s: %q, %v, want %s", flag, r.AddHosts, err, want)
		}
	}
	for _, flag := range []string{"", "h", "h:", "h=", ":10.0.0.9", "=::1", "h:=::1", "h=:::1", "h:10.0.0", "10.0.0.9", "h:host-gateway", "h=host-gateway"} {
		f, r := buildFlags{addHosts: []string{flag}}, new(build.Request)
		if err := f.limits(r); err == nil {
			t.Errorf("--add-host %s is taken as %q", flag, r.AddHosts)
		}
	}
}
