package hints

import (
	"slices"
	"strings"
)

// Commands that set a system up and read no variable that a build would make for itself, such as a commit: what else they use stands
// in their words.
var (
	// cheap ones are not worth a warning.
	cheap = words(": true false test [ [[ set export unset cd pushd popd echo printf cat mkdir rmdir rm mv cp ln touch chmod chown chgrp " +
		"install useradd adduser usermod groupadd addgroup deluser passwd chpasswd which type ls id whoami sed grep awk head tail tr cut " +
		"sort uniq tee find sleep uname date hostname locale-gen ldconfig update-alternatives update-ca-certificates ulimit umask " +
		"mktemp basename dirname readlink realpath env stat command . source exit")
	// costly ones are, whatever words follow.
	costly = words("curl wget aria2c tar unzip gunzip gzip xz bzip2 zstd gpg apt-key apt-mark add-apt-repository dpkg dpkg-reconfigure rpm " +
		"apt-get apt aptitude apk yum dnf microdnf zypper pacman tdnf brew docker-php-ext-install docker-php-ext-configure docker-php-ext-enable pecl pear a2enmod " +
		"install-php-extensions conda mamba micromamba gem fnm nvm rustup sdk md5sum sha1sum sha256sum sha512sum shasum openssl tlmgr cpanm luarocks opam")
	// fetching are tools that do other things as well: the first words of what only fetches and installs.
	fetching = map[string][]string{
		"npm":      words("ci install i clean-install install-ci-test config set cache"),
		"pnpm":     words("install i fetch config setup store"),
		"yarn":     words("install config set policies cache global"),
		"bun":      words("install i"),
		"corepack": words("enable prepare install"),
		"pip":      words("install download wheel config cache"),
		"pipx":     words("install"),
		"pipenv":   words("install sync lock"),
		"poetry":   words("install config self lock export"),
		"pdm":      words("install sync config"),
		"uv":       words("sync pip venv python tool lock export"),
		"bundle":   words("install config"),
		"bundler":  words("install config"),
		"composer": words("install require config global"),
		"cargo":    words("fetch chef vendor"),
		"go":       words("mod get build install test vet env"),
		"dotnet":   words("restore"),
		"git":      words("clone config lfs"),
		"helm":     words("repo plugin pull"),
	}
)

func words(s string) []string { return strings.Fields(s) }

// isCheap tells whether a command is done at once.
func (c call) isCheap() bool { return len(c) > 0 && slices.Contains(cheap, c[0]) }

// setsUp tells whether a command is one of those above.
func (c call) setsUp() bool {
	if len(c) == 0 {
		return false
	}
	name := c[0]
	if strings.HasPrefix(name, "pip") && strings.Trim(name[3:], "0123456789.") == "" {
		name = "pip"
	}
	if strings.HasPrefix(name, "python") && strings.Trim(name[6:], "0123456789.") == "" {
		for i, a := range c[1:] {
			if a == "-m" && i+2 < len(c) {
				return c[i+2] == "venv" || call(c[i+2:]).setsUp()
			}
		}
		return false
	}
	if c.isCheap() || slices.Contains(costly, name) {
		return true
	}
	sub, _ := c.subcommand("-C", "--prefix", "--dir", "--cwd", "--project", "--directory")
	if sub == "" {
		return name == "yarn" || name == "bundle"
	}
	return slices.Contains(fetching[name], sub)
}
