package registry

import (
	"fmt"
	"strings"
	"sync"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/credentials"

	"larder/internal/fault"
)

// dockerConfig looks credentials up where docker keeps them: config.json, its credential helpers, DOCKER_AUTH_CONFIG.
// The file is read when a registry first asks for a sign-in.
type dockerConfig struct {
	dir  string // "" is docker's own
	once sync.Once
	file *configfile.ConfigFile
	err  error
}

func (d *dockerConfig) load() {
	d.file, d.err = config.Load(d.dir)
	if d.err == nil && !d.file.ContainsAuth() {
		d.file.CredentialsStore = credentials.DetectDefaultStore(d.file.CredentialsStore)
	}
}

func (d *dockerConfig) credentials(host string) (user, secret string, err error) {
	d.once.Do(d.load)
	if d.err != nil {
		return "", "", fault.Errorf(fault.Usage, "docker's settings for credentials: %w", d.err)
	}
	key := host
	if host == "docker.io" {
		key = "https://index.docker.io/v1/"
	}
	ac, err := d.file.GetAuthConfig(key)
	if err != nil {
		// The error quotes what the helper printed, and nobody knows what that is.
		helper := d.file.CredentialHelpers[key]
		if helper == "" {
			helper = d.file.CredentialsStore
		}
		if helper != "" {
			helper = strings.TrimPrefix(helper, "docker-credential-")
			return "", "", fault.Errorf(fault.Registry, "credential helper docker-credential-%s gives nothing for %s: "+
				"try  echo %s | docker-credential-%s get", helper, host, key, helper)
		}
		return "", "", fault.Errorf(fault.Registry, "no usable credentials for %s in %s", host, d.file.GetFilename())
	}
	if ac.IdentityToken != "" {
		return "", ac.IdentityToken, nil
	}
	if ac.RegistryToken != "" && ac.Password == "" {
		return "", "", fault.New(fault.Usage, fmt.Errorf("%s has a registrytoken for %s, which larder cannot use: sign in with  docker login %s",
			d.file.GetFilename(), host, host))
	}
	return ac.Username, ac.Password, nil
}
