package runstep

import (
	"fmt"
	"os"

	"larder/internal/fault"
	"larder/internal/runtime"
)

// hostCAPath is where a step finds the host's CA bundle: below /dev, which is the container's own tmpfs, so that the
// mount point leaves nothing in a layer.
const hostCAPath = "/dev/.larder/ca.crt"

// caVariables are how the tools of the common languages are told of a CA bundle: OpenSSL and Go; Node; Python's
// requests, pip; curl; git; the AWS tools.
var caVariables = []string{
	"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO",
	"AWS_CA_BUNDLE",
}

// hostCA shows the host's CA bundle to the step and points the usual variables there, unless the image set them. It
// does not lie over the image's own bundle, which installing ca-certificates replaces. None of it is recorded.
func (p *prepared) hostCA(env *[]string) ([]runtime.Mount, error) {
	file := p.r.opts.HostCA
	if file == "" {
		return nil, nil
	}
	if fi, err := os.Stat(file); err != nil {
		return nil, fault.Errorf(fault.Usage, "CA bundle of --host-ca: %w", err)
	} else if !fi.Mode().IsRegular() {
		return nil, fault.New(fault.Usage, fmt.Errorf("CA bundle of --host-ca: %s is no file", file))
	}
	for _, name := range caVariables {
		*env = withDefault(*env, name, hostCAPath)
	}
	return []runtime.Mount{{Dest: hostCAPath, Type: "bind", Source: file, Options: []string{"rbind", "ro", "nosuid", "nodev", "noexec"}}}, nil
}
