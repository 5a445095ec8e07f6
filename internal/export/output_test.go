package export

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"larder/internal/fault"
	"larder/internal/layer"
)

func TestParseOutput(t *testing.T) {
	for in, want := range map[string]map[string]string{
		"out":                              {"type": "local", "dest": "out"},
		"-":                                {"type": "tar", "dest": "-"},
		"type=tar":                         {"type": "tar"},
		"type=oci, Dest=a b.tar":           {"type": "oci", "dest": "a b.tar"},
		`type=image,"name=a,b",push=true`:  {"type": "image", "name": "a,b", "push": "true"},
		"type=image,annotation.Org.X= v=1": {"type": "image", "annotation.Org.X": " v=1"},
	} {
		if got, err := ParseOutput(in); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "dest=x,tar=1", "type=oci,dest", `type="x`} {
		if _, err := ParseOutput(in); fault.Of(err) != fault.Usage {
			t.Error(in, err)
		}
	}
}

func TestParse(t *testing.T) {
	get := func(s string, tags ...string) *Output {
		t.Helper()
		fields, err := ParseOutput(s)
		if err != nil {
			t.Fatal(err)
		}
		o, err := Parse(fields, tags)
		if err != nil {
			t.Fatal(s, err)
		}
		return o
	}
	o := get("type=registry,compression=zstd,compression-level=19,force-compression=true,source-date-epoch=5,annotation.a=b", "app", "other:1")
	if o.Type != Image || !o.Push || o.Names[0] != "docker.io/library/app:latest" || o.Names[1] != "docker.io/library/other:1" ||
		o.Compression != layer.Zstd || *o.Level != 19 || !o.Force || o.Epoch.Unix() != 5 {
		t.Errorf("%+v", o)
	}
	if o := get("type=oci"); o.Dest != "-" || !o.AsTar {
		t.Errorf("%+v", o)
	}
	if o := get("type=docker,name=x"); o.Dest != "" || o.Names[0] != "docker.io/library/x:latest" {
		t.Errorf("%+v", o)
	}
	if o := get("type=image,push=true,push-by-digest=true,name=localhost:5000/a:v"); o.Names[0] != "localhost:5000/a" {
		t.Errorf("%+v", o)
	}
	for s, want := range map[string]string{
		"type=weird":                                 "not known",
		"type=local":                                 "which directory",
		"type=local,dest=-":                          "standard output",
		"type=oci,tar=false":                         "which directory",
		"type=registry":                              "a name is missing",
		"type=image,unpack=true":                     "the field unpack is not possible",
		"type=image,push=maybe":                      "true or false",
		"type=image,compression=lzma":                "lzma",
		"type=image,compression=estargz":             "estargz",
		"type=image,compression-level=15":            "0 to 9",
		"type=image,compression-level=x":             "a number",
		"type=image,push-by-digest=true,name=a":      "but not push",
		"type=image,name=A:B:C":                      "A:B:C",
		"type=oci,oci-mediatypes=0,compression=zstd": "does not go with",
		"type=oci,source-date-epoch=now":             "seconds since",
		"type=local,dest=x,mode=sync":                "copy or delete",
		"type=image,annotation-weird.a=b":            "weird",
	} {
		fields, err := ParseOutput(s)
		if err != nil {
			t.Fatal(s, err)
		}
		if _, err := Parse(fields, nil); fault.Of(err) != fault.Usage || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", s, err)
		}
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "sub/a")
	f, err := CreateFile(p)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("new")
	if _, err := os.Stat(p); !errors.Is(err, os.ErrNotExist) {
		t.Error("visible before it is complete")
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	f.Abort()
	link := filepath.Join(dir, "link")
	os.Symlink(p, link)
	f, _ = CreateFile(link)
	f.WriteString("through")
	f.Commit()
	if b, _ := os.ReadFile(p); string(b) != "through" {
		t.Errorf("%s", b)
	}
	f, _ = CreateFile(p)
	f.WriteString("half")
	f.Abort()
	if b, _ := os.ReadFile(p); string(b) != "through" {
		t.Errorf("%s", b)
	}
	if list, _ := os.ReadDir(filepath.Dir(p)); len(list) != 1 {
		t.Error(list)
	}
	if _, err := CreateFile(dir); err == nil {
		t.Error("a directory is no file")
	}
	if f, err = CreateFile("/dev/null"); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); err != nil {
		t.Error(err)
	}
	if st, err := os.Stat("/dev/null"); err != nil || st.Mode().IsRegular() {
		t.Fatal("/dev/null is gone")
	}
}
