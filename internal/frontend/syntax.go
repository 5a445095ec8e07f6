package frontend

import (
	"fmt"
	"strings"

	distref "github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// builtin says what serves a "# syntax" line.
const builtin = "BuildKit v0.33.0's Dockerfile frontend, which is built in"

// syntax looks at the frontend image that the user asks for, by BUILDKIT_SYNTAX or by a "# syntax" line. Images are not
// run: docker/dockerfile, from wherever it is mirrored, is what this package has built in, any other is an error.
func (c *gateway) syntax(data []byte) error {
	var where []parser.Range
	line, ok := c.opts["build-arg:BUILDKIT_SYNTAX"]
	if !ok {
		if _, line, where, ok = parser.DetectSyntax(data); !ok {
			return nil
		}
	}
	image, _, _ := strings.Cut(strings.TrimSpace(line), " ")
	if !isDockerfile(image) {
		err := fmt.Errorf("the frontend image %s cannot be run: larder has %s, and no other; "+
			"drop the syntax line, or name docker/dockerfile:1 there", image, builtin)
		if where == nil {
			return err
		}
		return parser.WithLocation(err, where)
	}
	if c.req.Notice != nil {
		c.req.Notice(fmt.Sprintf("syntax %s is served by %s", image, builtin))
	}
	return nil
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
