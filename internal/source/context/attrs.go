package context

import (
	"encoding/json"
	"fmt"

	"github.com/moby/buildkit/solver/pb"
)

// Parse reads what the attributes of an LLB source operation "local://name" ask for. An attribute that would change what
// is in the layer and is not known is an error; those that only help a remote client are passed over.
func Parse(attrs map[string]string) (Options, error) {
	var o Options
	for name, value := range attrs {
		var list *[]string
		switch name {
		case pb.AttrIncludePatterns:
			list = &o.Include
		case pb.AttrExcludePatterns:
			list = &o.Exclude
		case pb.AttrFollowPaths:
			list = &o.FollowPaths
		case pb.AttrLocalSessionID, pb.AttrLocalUniqueID, pb.AttrSharedKeyHint, pb.AttrLocalDiffer:
			continue
		default:
			return Options{}, fmt.Errorf("local source: the attribute %.80q is not supported", name)
		}
		if err := json.Unmarshal([]byte(value), list); err != nil {
			return Options{}, fmt.Errorf("local source: %s is no list of strings: %w", name, err)
		}
	}
	return o, nil
}
