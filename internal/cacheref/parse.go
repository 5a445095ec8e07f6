package cacheref

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"larder/internal/fault"
)

// What BuildKit calls a document whose name nobody says.
const (
	defaultTag      = "latest"
	defaultLocalTag = "latest"
	defaultS3Name   = "buildkit"
)

// A use is one of the flags.
type use string

const (
	useBoth  use = "--cache"
	useRead  use = "--cache-from"
	useWrite use = "--cache-to"
)

// ParseCache reads --cache: a repository without a tag ("registry.example/app"), a directory ("./dir", "/dir", "local:DIR"),
// "s3://BUCKET/PREFIX", or a CSV with a type. All stages are kept. Errors have the kind Usage.
func ParseCache(s string) (Ref, error) {
	refs, err := parse(useBoth, s)
	if err != nil {
		return Ref{}, err
	}
	return refs[0], nil
}

// ParseFrom reads the values of --cache-from. One that is empty says nothing, as with buildx, and one without a type may be
// several references with commas between them.
func ParseFrom(values []string) ([]Ref, error) { return parseAll(useRead, values) }

// ParseTo reads the values of --cache-to, by ParseFrom's rules.
func ParseTo(values []string) ([]Ref, error) { return parseAll(useWrite, values) }

func parseAll(u use, values []string) ([]Ref, error) {
	var out []Ref
	for _, v := range values {
		if strings.TrimSpace(v) == "" {
			continue
		}
		refs, err := parse(u, v)
		if err != nil {
			return nil, err
		}
		out = append(out, refs...)
	}
	return out, nil
}

// parse reads one value of a flag and gives at least one Ref. What is refused is quoted without credentials.
func parse(u use, s string) ([]Ref, error) {
	fields, err := split(s)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "%s: %w", u, err)
	}
	var refs []Ref
	if !strings.Contains(s, "=") {
		if len(fields) > 1 && u == useBoth {
			return nil, fault.Errorf(fault.Usage, "%s %s: one cache is expected; --cache-from names more to read from", u, shown(fields))
		}
		for _, f := range fields {
			r, err := bare(u, f)
			if err != nil {
				return nil, fault.Errorf(fault.Usage, "%s %s: %w", u, withoutUser(f), err)
			}
			refs = append(refs, r)
		}
	} else if refs, err = typed(u, fields); err != nil {
		return nil, fault.Errorf(fault.Usage, "%s %s: %w", u, shown(fields), err)
	}
	for i := range refs {
		refs[i].setText()
		for j, n := range refs[i].Notes {
			refs[i].Notes[j] = fmt.Sprintf("%s %s: %s", u, refs[i].Text, n)
		}
	}
	return refs, nil
}

// split cuts a line of CSV. Its errors quote nothing: there may be credentials in it.
func split(s string) ([]string, error) {
	if strings.TrimSpace(s) == "" {
		return nil, errors.New("nothing is said; name a repository, such as registry.example/app")
	}
	r := csv.NewReader(strings.NewReader(s))
	r.TrimLeadingSpace = true
	fields, err := r.Read()
	if err != nil {
		var pe *csv.ParseError
		if errors.As(err, &pe) {
			err = fmt.Errorf("column %d: %w", pe.Column, pe.Err)
		}
		return nil, err
	}
	if _, err := r.Read(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more than one line; give the flag once for each")
	}
	for i := range fields {
		fields[i] = strings.TrimSpace(fields[i])
	}
	return fields, nil
}

// shown gives the fields of a line for messages. A field without "=" may be the rest of a secret that has a comma in it.
func shown(fields []string) string {
	out := make([]string, len(fields))
	secret := false
	for i, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		switch {
		case ok:
			out[i] = k + "=" + publicValue(k, v)
			secret = out[i] == k+"="+hidden
		case secret:
			out[i] = hidden
		default:
			out[i] = withoutUser(f)
		}
	}
	text := strings.Join(out, ",")
	if len(text) > 300 {
		text = text[:300] + "..."
	}
	return text
}

// bare reads a value that has no type: a reference or a path.
func bare(u use, s string) (Ref, error) {
	r := Ref{Max: u == useBoth}
	dir, isDir := strings.CutPrefix(s, "local:")
	switch {
	case isDir && (u == useBoth || strings.HasPrefix(dir, "/") || strings.HasPrefix(dir, ".")): // else the image local:TAG
	case s == "." || s == "..", strings.HasPrefix(s, "/"), strings.HasPrefix(s, "./"), strings.HasPrefix(s, "../"), strings.HasPrefix(s, "~"):
		dir, isDir = s, true
	default:
		isDir = false
	}
	switch {
	case isDir:
		r.Type = Local
		if u != useBoth {
			r.Tag = defaultLocalTag
		}
		return r, r.setDir(dir)
	case strings.HasPrefix(s, "s3://"):
		bucket, prefix, _ := strings.Cut(strings.TrimPrefix(s, "s3://"), "/")
		if bucket == "" || strings.ContainsAny(s, "?#@") {
			return r, errors.New("s3://BUCKET/PREFIX is expected; type=s3,bucket=BUCKET,... says more")
		}
		r.Type, r.Attrs = S3, map[string]string{"bucket": bucket}
		if prefix = strings.Trim(prefix, "/"); prefix != "" {
			r.Attrs["prefix"] = prefix + "/" // objects are named by putting strings together
		}
		if u != useBoth {
			r.Tag = defaultS3Name
		}
		return r, nil
	}
	r.Type = Registry
	return r, r.setRepository(u, s)
}

// setDir takes a directory.
func (r *Ref) setDir(dir string) error {
	switch {
	case dir == "":
		return errors.New("which directory? Its name is empty; is a variable unset?")
	case dir == "~" || strings.HasPrefix(dir, "~/"):
		return errors.New("the shell has not replaced ~; write $HOME")
	case strings.ContainsRune(dir, 0):
		return errors.New("a directory's name cannot contain a zero byte")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	r.Dir = abs
	return nil
}
