package cli

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"larder/internal/build"
	"larder/internal/cacheref"
	"larder/internal/catalog"
	"larder/internal/fault"
)

// cacheFlags are the flags about remote caches.
type cacheFlags struct {
	cache, scope, signKey           string
	from, to, scopesFrom, verifyKey []string
	refresh                         []string
	readOnly, strict, verify        bool
}

func (f *cacheFlags) register(fl *pflag.FlagSet) {
	fl.StringVar(&f.cache, "cache", "", "Remote cache to read and write: a repository (REGISTRY/NAME), a directory, or type=...; every stage is kept")
	fl.StringArrayVar(&f.from, "cache-from", nil, "Remote cache to read: an image, or type=registry|local|s3,...")
	fl.StringArrayVar(&f.to, "cache-to", nil, "Remote cache to write: type=registry|local|s3|inline,...[,mode=min|max][,ignore-error=true]")
	fl.StringVar(&f.scope, "cache-scope", "", "Scope to write and to read first, such as the branch (default \""+build.DefaultScope+"\")")
	fl.StringArrayVar(&f.scopesFrom, "cache-scope-from", nil, "Scope to read after one's own, such as the base branch; the scope \""+build.DefaultScope+"\" is read last")
	fl.BoolVar(&f.readOnly, "cache-read-only", false, "Write nothing to --cache")
	fl.StringVar(&f.signKey, "cache-sign-key", "", "Sign what is written with this ed25519 private key: a PEM file, or env:VARIABLE")
	fl.StringArrayVar(&f.verifyKey, "cache-verify-key", nil, "Believe only what one of these ed25519 public keys signed: a PEM file, or env:VARIABLE")
	fl.BoolVar(&f.strict, "cache-strict", false, "Fail where a remote cache cannot be read or written, instead of a warning")
	fl.BoolVar(&f.verify, "cache-verify", false, "Run steps again that the cache has, compare file by file, and fail where they differ")
	fl.StringArrayVar(&f.refresh, "refresh", nil, "Run steps again whose results are older than this, such as 7d; STAGE=7d for one stage")
}

// mustSay are flags that are never empty on purpose: a variable was unset, and what they were to protect would not be.
var mustSay = []string{"cache-scope", "cache-scope-from", "cache-sign-key", "cache-verify-key"}

// check finds values that would quietly do the opposite of what they are for.
func (f *cacheFlags) check(flags *pflag.FlagSet) error {
	for _, name := range mustSay {
		variable := "LARDER_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		if v, ok := lookupEnv(variable); ok && v == "" && (!flags.Changed(name) || flags.Lookup(name).Value.String() == "") {
			return usage("%s is empty: is a variable unset? Unset it too, or give it a value", variable)
		}
		if !flags.Changed(name) {
			continue
		}
		values := []string{flags.Lookup(name).Value.String()}
		if list, ok := flags.Lookup(name).Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		if slices.Contains(values, "") {
			return usage("--%s is empty: is a variable unset?", name)
		}
	}
	for _, scope := range append([]string{f.scope}, f.scopesFrom...) {
		if strings.HasPrefix(scope, catalog.TagScope) || len(scope) > 200 || strings.ContainsFunc(scope, unicode.IsControl) || !utf8.ValidString(scope) {
			return usage("--cache-scope %.200q: a name such as that of a branch is expected, of at most 200 bytes, without control characters and not beginning with %s", scope, catalog.TagScope)
		}
	}
	return nil
}

// request reads the flags.
func (f *cacheFlags) request() (build.Cache, error) {
	c := build.Cache{Scope: f.scope, ReadScopes: f.scopesFrom, Strict: f.strict, Verify: f.verify}
	if f.cache != "" {
		ref, err := cacheref.ParseCache(f.cache)
		if err != nil {
			return c, err
		}
		c.From = append(c.From, ref)
		if !f.readOnly {
			c.To = append(c.To, ref)
		}
	}
	from, err := cacheref.ParseFrom(f.from)
	if err != nil {
		return c, err
	}
	to, err := cacheref.ParseTo(f.to)
	if err != nil {
		return c, err
	}
	if f.readOnly && len(to) > 0 {
		return c, usage("--cache-read-only and --cache-to contradict each other")
	}
	c.From, c.To = append(c.From, from...), append(c.To, to...)
	if c.Refresh, err = build.ParseRefresh(f.refresh); err != nil {
		return c, err
	}
	c.Keys, err = f.keys()
	return c, err
}

func (f *cacheFlags) keys() (*catalog.Keys, error) {
	keys := new(catalog.Keys)
	if f.signKey != "" {
		b, err := keyBytes("--cache-sign-key", f.signKey)
		if err != nil {
			return nil, err
		}
		if keys.Sign, err = catalog.ParsePrivate(b); err != nil {
			return nil, fault.Errorf(fault.Usage, "--cache-sign-key %s: %w", f.signKey, err)
		}
	}
	for _, name := range f.verifyKey {
		b, err := keyBytes("--cache-verify-key", name)
		if err != nil {
			return nil, err
		}
		var k ed25519.PublicKey
		if k, err = catalog.ParsePublic(b); err != nil {
			return nil, fault.Errorf(fault.Usage, "--cache-verify-key %s: %w", name, err)
		}
		keys.Verify = append(keys.Verify, k)
	}
	return keys, nil
}

// keyBytes reads a key from a file or from a variable, where CI systems keep their secrets.
func keyBytes(flag, name string) ([]byte, error) {
	if variable, ok := strings.CutPrefix(name, "env:"); ok {
		v, ok := os.LookupEnv(variable)
		if !ok {
			return nil, usage("%s %s: the variable %s is not set", flag, name, variable)
		}
		return []byte(v), nil
	}
	if strings.Contains(name, "\n") || strings.Contains(name, "-----BEGIN") {
		return nil, usage("%s: that is a key itself, and others can read command lines; write it to a file, or name the variable that has it with env:VARIABLE", flag)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "%s: %w", flag, err)
	}
	return b, nil
}

// differences says what --cache-verify found.
func differences(res *build.Result) error {
	if len(res.Differences) == 0 {
		return nil
	}
	var b strings.Builder
	for _, d := range res.Differences {
		fmt.Fprintf(&b, "\n  %s: %d files", d.Step, len(d.Files)+d.More)
	}
	return fault.Errorf(fault.Build, "--cache-verify: %d steps came out otherwise than the cache has them:%s", len(res.Differences), b.String())
}
