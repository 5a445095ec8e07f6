package config

import (
	"path/filepath"
	"testing"
)

func TestLoad(t *testing.T) {
	for path, want := range map[string]Config{
		"": {HTTP: ":8080", GRPC: ":9090", Workers: 4},
		filepath.Join("testdata", "settings.yaml"): {HTTP: ":8081", GRPC: ":9090", Database: "postgres://ledger@localhost/ledger", Workers: 2},
	} {
		got, err := Load(path)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", path, got, err, want)
		}
	}
	if _, err := Load(filepath.Join("testdata", "missing.yaml")); err == nil {
		t.Error("a missing file is no error")
	}
}
