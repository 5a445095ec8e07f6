package catalog

import (
	"strings"
	"testing"

	"larder/internal/fault"
)

// What others keep beside catalogs.
const (
	imageDoc  = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:aa","size":2},"layers":[]}`
	indexDoc  = `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:aa","size":2}]}`
	chartDoc  = `{"schemaVersion":2,"artifactType":"application/vnd.cncf.helm.chart","config":{"mediaType":"application/vnd.cncf.helm.config.v1+json"},"layers":[]}`
	kitDoc    = `{"schemaVersion":2,"config":{"mediaType":"application/vnd.buildkit.cacheconfig.v0","digest":"sha256:aa","size":2},"layers":[]}`
	kitIndex  = `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip"},{"mediaType":"application/vnd.buildkit.cacheconfig.v0"}]}`
	damageDoc = `{"schemaVersion":2,"artifactType":"application/vnd.larder.catalog.v1+json","config":{}}`
)

// TestImagesStay: under whatever tag an image is found, it is neither listed, nor removed, nor written over.
func TestImagesStay(t *testing.T) {
	places := map[string]Name{"the user's tag": {"tag:latest", "latest"}, "a tag like ours": {"tag:larder-2.0", "larder-2.0"}, "the scope's own": mainScope}
	for what, c := range map[string]struct {
		doc             string
		replace, remove bool // it may be
	}{
		"an image": {imageDoc, false, false}, "an index": {indexDoc, false, false}, "a chart": {chartDoc, false, false}, "nothing that anybody knows": {"{}", false, false},
		"BuildKit's cache": {kitDoc, true, false}, "BuildKit's cache in an index": {kitIndex, true, false}, "a damaged catalog": {damageDoc, true, true},
	} {
		for where, name := range places {
			bubble(t, func(t *testing.T) {
				m := newMemory("registry.example/app")
				m.docs[name.Tag] = []byte(c.doc)
				list, err := List(t.Context(), m, Options{})
				if listed := c.remove && strings.HasPrefix(name.Tag, tagPrefix); err != nil || (len(list) == 1) != listed {
					t.Errorf("%s under %s: listed %+v, %v", what, where, list, err)
				}
				_, err = Save(t.Context(), m, name, step("s", "x").withoutBlobs(), Options{})
				if c.replace && err != nil || !c.replace && (fault.Of(err) != fault.Usage || !strings.Contains(err.Error(), "tag "+name.Tag) || string(m.docs[name.Tag]) != c.doc) {
					t.Errorf("%s under %s: saved, %v", what, where, err)
				}
				m.docs[name.Tag] = []byte(c.doc)
				err = Remove(t.Context(), m, name)
				_, there := m.docs[name.Tag]
				if c.remove && (err != nil || there) || !c.remove && (fault.Of(err) != fault.Usage || !strings.Contains(err.Error(), "tag "+name.Tag) || !there) {
					t.Errorf("%s under %s: removed, %v", what, where, err)
				}
			})
		}
	}
	// What nobody can read may have been an image, but where only catalogs lie.
	m := newMemory("registry.example/app")
	for tag, goes := range map[string]bool{"latest": false, "larder-2.0": false, ScopeTag("x"): true} {
		m.docs[tag] = []byte("{")
		if err := Remove(t.Context(), m, Name{"x", tag}); (err == nil) != goes || !goes && fault.Of(err) != fault.Usage {
			t.Errorf("%s: %v", tag, err)
		}
	}
}

// TestOtherScopesStay: --cache-to ref=REPOSITORY:TAG with the tag of a scope, or of what was copied there, takes nothing away.
func TestOtherScopesStay(t *testing.T) {
	_, private := newKey(t)
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		mustSave(t, m, mainScope, step("s", "x").withoutBlobs(), Options{})
		moved := Name{"feature", ScopeTag("feature")}
		m.docs[moved.Tag] = m.docs[mainScope.Tag]
		for _, name := range []Name{{"tag:" + mainScope.Tag, mainScope.Tag}, moved} {
			before := string(m.docs[name.Tag])
			for _, keys := range []*Keys{nil, {Sign: private}} {
				if keys != nil && name == moved {
					continue // without a signature that is trusted, nobody knows what it is
				}
				_, err := Save(t.Context(), m, name, step("t", "x").withoutBlobs(), Options{Keys: keys})
				if fault.Of(err) != fault.Usage || !strings.Contains(err.Error(), "another tag") || string(m.docs[name.Tag]) != before {
					t.Errorf("%s: %v", name.Scope, err)
				}
			}
		}
		m.alike = true
		if err := Remove(t.Context(), m, moved); err != nil {
			t.Fatal(err)
		}
		if _, there := m.docs[moved.Tag]; there {
			t.Error("the copy stays")
		}
		mustSave(t, m, moved, step("t", "x").withoutBlobs(), Options{})
		if c := mustLoad(t, m, mainScope, Options{}); len(c.Entries(t.Context())) != 1 {
			t.Error("scope main is gone")
		}
	})
}
