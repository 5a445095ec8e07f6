package image

import (
	"fmt"
	"strings"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types, for registries and tools that know no others.
const (
	dockerManifest  = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList      = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig    = "application/vnd.docker.container.image.v1+json"
	dockerLayer     = "application/vnd.docker.image.rootfs.diff.tar"
	dockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	dockerLayerZstd = "application/vnd.docker.image.rootfs.diff.tar.zstd"
	dockerForeign   = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	foreignGzip     = dockerForeign + ".gzip"

	ociNondist     = "application/vnd.oci.image.layer.nondistributable.v1.tar"
	ociNondistGzip = ociNondist + "+gzip"
	ociNondistZstd = ociNondist + "+zstd"
)

// layerTypes pairs OCI's names of layers with Docker's. Layers that were marked as not to be distributed lose the mark, as
// with BuildKit: what an image needs is pushed with it.
var layerTypes = map[string][2]string{
	ocispecs.MediaTypeImageLayer:     {ocispecs.MediaTypeImageLayer, dockerLayer},
	ocispecs.MediaTypeImageLayerGzip: {ocispecs.MediaTypeImageLayerGzip, dockerLayerGzip},
	ocispecs.MediaTypeImageLayerZstd: {ocispecs.MediaTypeImageLayerZstd, dockerLayerZstd},
	dockerLayer:                      {ocispecs.MediaTypeImageLayer, dockerLayer},
	dockerLayerGzip:                  {ocispecs.MediaTypeImageLayerGzip, dockerLayerGzip},
	dockerLayerZstd:                  {ocispecs.MediaTypeImageLayerZstd, dockerLayerZstd},
	ociNondist:                       {ocispecs.MediaTypeImageLayer, dockerLayer},
	ociNondistGzip:                   {ocispecs.MediaTypeImageLayerGzip, dockerLayerGzip},
	ociNondistZstd:                   {ocispecs.MediaTypeImageLayerZstd, dockerLayerZstd},
	dockerForeign:                    {ocispecs.MediaTypeImageLayer, dockerLayer},
	foreignGzip:                      {ocispecs.MediaTypeImageLayerGzip, dockerLayerGzip},
}

// layerType names a layer's media type in the format that the image has.
func layerType(mt string, docker bool) (string, error) {
	pair, ok := layerTypes[mt]
	if !ok {
		return "", fmt.Errorf("a layer of type %.100q does not go into an image manifest", mt)
	}
	if docker {
		return pair[1], nil
	}
	return pair[0], nil
}

// layerAnnotations drops what is only meant for the store that a descriptor was in.
func layerAnnotations(in map[string]string, docker bool) map[string]string {
	if docker || len(in) == 0 {
		return nil
	}
	out := make(map[string]string, len(in))
	for k, v := range in {
		if k == "containerd.io/uncompressed" || k == "buildkit/createdat" || strings.HasPrefix(k, "containerd.io/distribution.source.") {
			continue
		}
		out[k] = v
	}
	return out
}
