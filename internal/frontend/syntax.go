package frontend

import (
	"context"
	"fmt"
	"strings"

	distref "github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/builder"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
)

// builtin says what serves a "# syntax" line.
const builtin = "BuildKit v0.33.0's Dockerfile frontend, which is built in"

// forward serves a request for another frontend: the image that a "# syntax" line or BUILDKIT_SYNTAX names. Images are
// not run; docker/dockerfile, from wherever it is mirrored, is what this package has built in.
func (c *gateway) forward(ctx context.Context, req gwclient.SolveRequest) (*gwclient.Result, error) {
	switch req.Frontend {
	case "dockerfile.v0":
	case "gateway.v0":
		source := req.FrontendOpt["source"]
		if !isDockerfile(source) {
			return nil, fmt.Errorf("the frontend image %s cannot be run: larder has %s, and no other; "+
				"drop the syntax line, or name docker/dockerfile:1 there", source, builtin)
		}
		if c.req.Notice != nil {
			c.req.Notice(fmt.Sprintf("syntax %s is served by %s", source, builtin))
		}
	default:
		return nil, fmt.Errorf("unknown frontend %.80q", req.Frontend)
	}
	sub := &gateway{req: c.req, opts: req.FrontendOpt, inputs: req.FrontendInputs}
	if sub.opts == nil {
		sub.opts = map[string]string{}
	}
	if _, ok := sub.opts["cmdline"]; !ok {
		sub.opts["cmdline"] = "" // it has been forwarded once: no second time
	}
	return builder.Build(ctx, sub)
}

// isDockerfile reports whether an image is a build of the Dockerfile frontend whose language the built-in one speaks:
// any 0.x or 1.x, any channel.
func isDockerfile(image string) bool {
	named, err := distref.ParseNormalizedNamed(image)
	if err != nil {
		return false
	}
	path := "/" + distref.Path(named)
	if !strings.HasSuffix(path, "/docker/dockerfile") && !strings.HasSuffix(path, "/docker/dockerfile-upstream") {
		return false
	}
	tagged, ok := named.(distref.Tagged)
	if !ok {
		return true
	}
	major, _, _ := strings.Cut(strings.TrimPrefix(tagged.Tag(), "v"), ".")
	major, _, _ = strings.Cut(major, "-")
	if major == "" || strings.Trim(major, "0123456789") != "" {
		return true // latest, labs, master and the like
	}
	return major == "0" || major == "1"
}
