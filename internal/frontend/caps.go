package frontend

import (
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
)

// product is how larder names itself to frontends and in their errors about capabilities.
const product = "larder"

func init() { apicaps.ExportedProduct = product }

const (
	noDaemon  = "larder has no daemon that would keep state between builds"
	noPolicy  = "larder has no source policies"
	noExec    = "larder's frontends cannot run containers of their own"
	noSuchOp  = "larder has no such operation"
	notNeeded = "larder reads local files in place"
)

// refusedLLB are the capabilities of BuildKit's solver that larder's has not, with the reason that a user is shown.
//
// The Dockerfile frontend leaves an option out, without a word, where the engine lacks its capability: ulimits, cgroup
// parents, devices, limits of memory and CPU. So all of "exec.*" is offered, and a step that asks for what cannot be
// done fails when it is to run.
var refusedLLB = map[apicaps.CapID]string{
	pb.CapSourceMetadataTransfer: notNeeded,
	pb.CapSourceImageBlob:        noSuchOp,
	pb.CapBuildOpLLBFileName:     noSuchOp,
	pb.CapPassthroughOp:          noSuchOp,
	pb.CapExecMetaNetworkProxy:   noSuchOp,
	pb.CapSourcePolicy:           noPolicy,
	pb.CapSourcePolicySession:    noPolicy,
	pb.CapRemoteCacheGHA:         noDaemon,
	pb.CapRemoteCacheS3:          noDaemon,
	pb.CapRemoteCacheAzBlob:      noDaemon,
	pb.CapSessionExporter:        noDaemon,
	pb.CapGCFreeSpaceFilter:      noDaemon,
	pb.CapHistoryFilters:         noDaemon,
}

// refusedGateway are the capabilities of BuildKit's frontend gateway that ours has not.
var refusedGateway = map[apicaps.CapID]string{
	gwpb.CapImportCaches:                          "larder reads its caches without the frontend",
	gwpb.CapGatewayExec:                           noExec,
	gwpb.CapGatewayExecExtraHosts:                 noExec,
	gwpb.CapGatewayExecSecretEnv:                  noExec,
	gwpb.CapGatewayExecSignals:                    noExec,
	gwpb.CapGatewayExecFilesystem:                 noExec,
	gwpb.CapSourceMetaResolverImageAttestations:   "larder does not fetch attestations of base images",
	gwpb.CapSourceMetaResolverHTTPChecksumRequest: "larder does not compute checksums of remote files ahead",
}

// LLBCaps is the set of capabilities that larder's solver honours. Each vertex of a definition lists what it needs
// (pb.OpMetadata.Caps), so that a solver can refuse, by Supports, what it would otherwise get wrong.
func LLBCaps() apicaps.CapSet { return without(&pb.Caps, refusedLLB) }

func gatewayCaps() apicaps.CapSet { return without(&gwpb.Caps, refusedGateway) }

func without(list *apicaps.CapList, refused map[apicaps.CapID]string) apicaps.CapSet {
	all := list.All()
	for _, c := range all {
		if reason, ok := refused[apicaps.CapID(c.ID)]; ok {
			c.Enabled, c.DisabledReasonMsg = false, reason
		}
	}
	return list.CapSet(all)
}
