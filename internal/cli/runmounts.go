package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"larder/internal/build"
)

// parseVolume reads SOURCE:TARGET[:ro].
func parseVolume(v string) (build.Mount, error) {
	parts := strings.Split(v, ":")
	m := build.Mount{Type: "bind"}
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return m, errors.New("SOURCE:TARGET[:ro] is expected; --mount takes paths with a colon")
	}
	if len(parts) == 3 {
		switch parts[2] {
		case "ro":
			m.ReadOnly = true
		case "rw":
		default:
			return m, fmt.Errorf("%q is no option; ro and rw are", parts[2])
		}
	}
	m.Target = parts[1]
	return m, onMachine(&m, parts[0])
}

// onMachine makes a path of this machine the source of a bind.
func onMachine(m *build.Mount, path string) (err error) {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	m.Source, err = filepath.Abs(path)
	return err
}

// mountFields are the fields of --mount beside type and target, by its type.
var mountFields = map[string][]string{
	"cache":  {"id", "sharing", "uid", "gid", "mode", "readonly"},
	"bind":   {"source", "readonly"},
	"tmpfs":  {"size"},
	"secret": {"id", "env", "uid", "gid", "mode"},
}

// otherNames are what fields of --mount may be called, too.
var otherNames = map[string]string{"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}

// parseMount reads --mount.
func parseMount(v string) (build.Mount, error) {
	var m build.Mount
	given, err := mountValues(v)
	if err != nil {
		return m, err
	}
	m.Type = given["type"]
	fields, ok := mountFields[m.Type]
	if !ok {
		return m, fmt.Errorf("type=%s: cache, bind, tmpfs and secret are known", m.Type)
	}
	delete(given, "type")
	for name, value := range given {
		switch {
		case name == "from":
			return m, errors.New("from= is the Dockerfile's; type=bind,source=PATH shows what is on this machine")
		case name != "target" && !slices.Contains(fields, name):
			return m, fmt.Errorf("%s is no field of type=%s; target, %s are", name, m.Type, strings.Join(fields, ", "))
		}
		if err := mountField(&m, name, value); err != nil {
			return m, fmt.Errorf("%s=%s: %w", name, value, err)
		}
	}
	if m.Target == "" && m.Type != "secret" {
		return m, errors.New("target= is missing")
	}
	if m.Type == "bind" && m.Source == "" {
		return m, errors.New("source= is missing")
	}
	if m.Type == "secret" && m.ID == "" {
		return m, errors.New("id= is missing")
	}
	return m, nil
}

// mountValues splits a mount into its fields, under one name each.
func mountValues(v string) (map[string]string, error) {
	list, err := csv.NewReader(strings.NewReader(v)).Read()
	if err != nil {
		return nil, err
	}
	given := map[string]string{}
	for _, field := range list {
		name, value, ok := strings.Cut(field, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if other := otherNames[name]; other != "" {
			name = other
		}
		if !ok && (name == "readonly" || name == "readwrite") {
			value, ok = "true", true
		}
		if !ok {
			return nil, fmt.Errorf("%q: NAME=VALUE is expected", field)
		}
		if name == "readwrite" {
			on, err := strconv.ParseBool(value)
			if err != nil {
				return nil, fmt.Errorf("%s: true or false is expected", field)
			}
			name, value = "readonly", strconv.FormatBool(!on)
		}
		if _, ok := given[name]; ok {
			return nil, fmt.Errorf("%s= is there twice", name)
		}
		given[name] = value
	}
	return given, nil
}

func mountField(m *build.Mount, name, value string) (err error) {
	switch name {
	case "target":
		m.Target = value
	case "id":
		m.ID = value
	case "env":
		m.Env = value
	case "source":
		return onMachine(m, value)
	case "sharing":
		if !slices.Contains([]string{"shared", "private", "locked"}, value) {
			return errors.New("shared, private and locked are known")
		}
		m.Sharing = value
	case "readonly":
		m.ReadOnly, err = strconv.ParseBool(value)
	case "size":
		m.Size, err = units.RAMInBytes(value)
	case "uid":
		m.UID, err = owner(value)
	case "gid":
		m.GID, err = owner(value)
	case "mode":
		mode, perr := strconv.ParseUint(value, 8, 12)
		if perr != nil {
			return errors.New("octal digits are expected, such as 0755")
		}
		bits := uint32(mode)
		m.Mode = &bits
	}
	return err
}

func owner(value string) (*int, error) {
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return nil, errors.New("a number is expected")
	}
	id := int(n)
	return &id, nil
}

// parseResult reads DIR:PATH.
func parseResult(v string) (build.Copy, error) {
	at := strings.LastIndexByte(v, ':')
	if at <= 0 || at == len(v)-1 {
		if strings.HasPrefix(v, "type=") {
			return build.Copy{}, errors.New("larder run makes no image; DIR:PATH copies PATH of the container to DIR on this machine")
		}
		return build.Copy{}, errors.New("DIR:PATH is expected: a directory of this machine, and what is copied there from the container")
	}
	dir, err := filepath.Abs(v[:at])
	return build.Copy{Dir: dir, Path: v[at+1:]}, err
}
