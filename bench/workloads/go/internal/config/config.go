// Package config reads the service's settings.
package config

import (
	"os"

	"gopkg.in/yaml.v3"
)

// Config is the settings file.
type Config struct {
	HTTP     string `yaml:"http"`
	GRPC     string `yaml:"grpc"`
	Database string `yaml:"database"`
	Workers  int    `yaml:"workers"`
}

// Load reads path, or gives the defaults for "".
func Load(path string) (Config, error) {
	c := Config{HTTP: ":8080", GRPC: ":9090", Workers: 4}
	if path == "" {
		return c, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return c, err
	}
	return c, yaml.Unmarshal(b, &c)
}
