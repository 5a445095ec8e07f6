package catalog

import (
	"regexp"
	"strings"

	"larder/internal/key"
)

const (
	tagPrefix  = "larder-"
	maxTag     = 128 // what registries take
	pageMark   = ".p-"
	pageDigits = 12
)

// TagScope begins the scope of a catalog that lies under a tag of the user's choice; that tag follows. No other scope begins so.
const TagScope = "tag:"

// NameOf says which catalog a scope's is.
func NameOf(scope string) Name {
	if tag, ok := strings.CutPrefix(scope, TagScope); ok {
		return Name{scope, tag}
	}
	return Name{scope, ScopeTag(scope)}
}

// scopeTag matches the tags that ScopeTag makes. No catalog lies under such a tag but its scope's.
var scopeTag = regexp.MustCompile(`^larder-([A-Za-z0-9_-]+-)?[0-9a-f]{20}$`)

// pageTag matches the tags of further pages. ScopeTag makes no dots, so no scope's own tag does.
var pageTag = regexp.MustCompile(`\.p-[0-9a-f]{12}$`)

// ScopeTag gives the tag of a scope's catalog: some of the name, for people, and a hash of all of it, so that two scopes never
// share a tag whatever characters they have.
func ScopeTag(scope string) string {
	readable := strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '_':
			return r
		}
		return '-'
	}, scope), "-")
	if len(readable) > 60 {
		readable = readable[:60]
	}
	if readable != "" {
		readable += "-"
	}
	return tagPrefix + readable + key.New("catalog scope").Str(scope).Sum().Hex()[:20] // scopeTag knows the form
}

// pagePrefix begins the tags of a catalog's further pages. A tag that leaves no room for more is cut and told apart by a hash.
func pagePrefix(tag string) string {
	if room := maxTag - len(pageMark) - pageDigits; len(tag) > room {
		const hash = 20
		tag = tag[:room-hash] + key.New("catalog pages").Str(tag).Sum().Hex()[:hash]
	}
	return tag + pageMark
}

// isPageOf tells the tags of a catalog's further pages from those of catalogs whose own tag begins like them.
func isPageOf(tag, page string) bool {
	return isPageTag(page) && len(page) == len(pagePrefix(tag))+pageDigits && strings.HasPrefix(page, pagePrefix(tag))
}
