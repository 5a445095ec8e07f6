package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"larder/internal/fault"
	"larder/internal/registry"
)

// commandLineOnly marks flags that no variable and no file may set.
const commandLineOnly = "larder-command-line-only"

// settings is what the settings files say. A later file wins over an earlier one, setting by setting.
type settings struct {
	registries registry.Table
	values     []setting
}

// setting gives a flag a value from a file.
type setting struct {
	flag   string
	values []string
	origin string // the file, and the line where it is known
}

// settingsFiles lists the files that count, the weakest first. LARDER_CONFIG replaces the others and must exist.
func settingsFiles(getenv func(string) string) (paths []string, mustExist bool) {
	if p := getenv("LARDER_CONFIG"); p != "" {
		return []string{p}, true
	}
	paths = []string{"/etc/larder/config.toml"}
	dir := getenv("XDG_CONFIG_HOME")
	if dir == "" && getenv("HOME") != "" {
		dir = filepath.Join(getenv("HOME"), ".config")
	}
	if dir != "" {
		paths = append(paths, filepath.Join(dir, "larder", "config.toml"))
	}
	return paths, false
}

// loadSettings reads the settings files. Their [registry] table is buildkitd.toml's; flags stand in [larder] under their
// names, so that a buildkitd.toml can be used as it is.
func loadSettings(getenv func(string) string) (*settings, error) {
	s := &settings{registries: registry.Table{}}
	paths, mustExist := settingsFiles(getenv)
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) && !mustExist {
			continue
		}
		if err != nil {
			return nil, fault.Errorf(fault.Usage, "settings: %w", err)
		}
		if err := s.addTOML(path, b); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *settings) addTOML(path string, b []byte) error {
	table, err := registry.ReadTable(strings.NewReader(string(b)))
	if err != nil {
		return tomlError(path, err)
	}
	for name, r := range table {
		s.registries[name] = r
	}
	var doc struct {
		Larder map[string]any `toml:"larder"`
	}
	if err := toml.Unmarshal(b, &doc); err != nil {
		return tomlError(path, err)
	}
	for name, v := range doc.Larder {
		values, err := flagValues(v)
		if err != nil {
			return fault.Errorf(fault.Usage, "%s: [larder] %s: %w", path, name, err)
		}
		s.values = append(s.values, setting{flag: name, values: values, origin: path})
	}
	return nil
}

func tomlError(path string, err error) error {
	var de *toml.DecodeError
	if errors.As(err, &de) {
		row, col := de.Position()
		return fault.Errorf(fault.Usage, "%s:%d:%d: %s", path, row, col, strings.TrimPrefix(de.Error(), "toml: "))
	}
	return fault.Errorf(fault.Usage, "%s: %w", path, err)
}

func flagValues(v any) ([]string, error) {
	switch v := v.(type) {
	case []any:
		var out []string
		for _, item := range v {
			one, err := flagValues(item)
			if err != nil {
				return nil, err
			}
			out = append(out, one...)
		}
		return out, nil
	case string, bool, int, int64, float64:
		return []string{fmt.Sprint(v)}, nil
	}
	return nil, fmt.Errorf("a value, or a list of values, is expected")
}

// projectFlags are what larder.yaml may set. A project is somebody else's: it says what is built, but neither what the build
// may do to this machine nor where results, secrets and programs are.
var projectFlags = []string{
	"file", "target", "tag", "build-arg", "platform", "label", "annotation", "no-cache", "no-cache-filter", "pull",
	"add-host", "ulimit", "shm-size", "parallel", "progress", "refresh",
}

// addProject reads larder.yaml of the project, where there is one: names of flags with their values.
func (s *settings) addProject(dir string) error {
	path := filepath.Join(dir, "larder.yaml")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.New(fault.Usage, err)
	}
	var doc map[string]yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return fault.Errorf(fault.Usage, "%s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	for name, node := range doc {
		origin := fmt.Sprintf("%s:%d", path, node.Line)
		if !slices.Contains(projectFlags, name) {
			return fault.Errorf(fault.Usage, "%s: %q is nothing that a project may set: it may set %s; give the rest on the command line or in the settings file", origin, name, strings.Join(projectFlags, ", "))
		}
		var v any
		if err := node.Decode(&v); err != nil {
			return fault.Errorf(fault.Usage, "%s: %w", origin, err)
		}
		values, err := flagValues(v)
		if err != nil {
			return fault.Errorf(fault.Usage, "%s: %s: %w", origin, name, err)
		}
		s.values = append(s.values, setting{flag: name, values: values, origin: origin})
	}
	return nil
}

// fill gives flags that the command line left out their value from the environment (LARDER_<FLAG>, a list one item per
// line), else from the files. A file may name flags of other commands; a name that no command has is refused by check.
func (s *settings) fill(flags *pflag.FlagSet, lookup func(string) (string, bool)) error {
	var failed error
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed || failed != nil || f.Name == "help" || f.Annotations[commandLineOnly] != nil {
			return
		}
		name := "LARDER_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v, ok := lookup(name); ok {
			failed = setFlag(flags, f, listItems(f, v), name)
			return
		}
		for i := len(s.values) - 1; i >= 0; i-- {
			if s.values[i].flag == f.Name {
				failed = setFlag(flags, f, s.values[i].values, s.values[i].origin)
				return
			}
		}
	})
	return failed
}

func listItems(f *pflag.Flag, v string) []string {
	if !strings.HasSuffix(f.Value.Type(), "Array") && !strings.HasSuffix(f.Value.Type(), "Slice") {
		return []string{v}
	}
	var out []string
	for _, line := range strings.Split(v, "\n") {
		if line != "" {
			out = append(out, line)
		}
	}
	return out
}

func setFlag(flags *pflag.FlagSet, f *pflag.Flag, values []string, origin string) error {
	for _, v := range values {
		if err := flags.Set(f.Name, v); err != nil {
			return fault.Errorf(fault.Usage, "%s: %w", origin, err)
		}
	}
	return nil
}

// knownFlag tells whether a command or one of its own has a flag.
func knownFlag(cmd *cobra.Command, name string) bool {
	return cmd.Flags().Lookup(name) != nil || cmd.PersistentFlags().Lookup(name) != nil ||
		slices.ContainsFunc(cmd.Commands(), func(c *cobra.Command) bool { return knownFlag(c, name) })
}

// check refuses settings whose name no flag has; known tells.
func (s *settings) check(known func(flag string) bool) error {
	for _, v := range s.values {
		if !known(v.flag) {
			return fault.Errorf(fault.Usage, "%s: %q is no setting; see 'larder build --help' for the names", v.origin, v.flag)
		}
	}
	return nil
}
