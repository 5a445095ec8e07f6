package cli

import (
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"larder/internal/catalog"
)

// listedMount is a cache mount in the JSON of ls.
type listedMount struct {
	ID       string    `json:"id"`
	Platform string    `json:"platform,omitempty"`
	Files    int64     `json:"files"`
	Size     int64     `json:"size"`   // bytes of the files
	Stored   int64     `json:"stored"` // bytes of the blobs
	Saved    time.Time `json:"saved"`
	Used     time.Time `json:"last_used"`
	Builds   int64     `json:"builds"`
	// Hits is the share of the files that the last build found in it and used, from 0 to 1; absent where it found none.
	Hits   *float64 `json:"hits,omitempty"`
	United bool     `json:"united"`
}

// listMounts leaves out the times of contexts, which are kept as a mount without an id is.
func listMounts(mounts []catalog.Mount) []listedMount {
	var out []listedMount
	for _, m := range mounts {
		if m.ID == "" {
			continue
		}
		l := listedMount{ID: m.ID, Platform: m.Platform, Files: m.Files, Size: m.Size, Saved: m.Saved, Used: m.Used, Builds: m.Builds, United: m.United}
		if m.Had > 0 {
			share := float64(m.Hit) / float64(m.Had)
			l.Hits = &share
		}
		for _, b := range distinct(slices.Collect(m.Blobs())) {
			l.Stored += b.Size
		}
		out = append(out, l)
	}
	return out
}

func (r *remoteCache) printMounts(list []catalog.Summary) error {
	w := tabwriter.NewWriter(r.out, 0, 8, 2, ' ', 0)
	any := false
	for _, s := range list {
		for _, m := range listMounts(s.Mounts) {
			if !any {
				any = true
				fmt.Fprintln(w, "\nSCOPE\tCACHE MOUNT\tPLATFORM\tFILES\tSIZE\tSTORED\tSAVED\tBUILDS\tHITS")
			}
			hits := "-"
			if m.Hits != nil {
				hits = fmt.Sprintf("%.0f %%", 100**m.Hits)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%d\t%s\n", oneLine(s.Name.Scope), oneLine(m.ID), orDash(oneLine(m.Platform)),
				m.Files, size(m.Size), size(m.Stored), r.ago(m.Saved), m.Builds, hits)
		}
	}
	return w.Flush()
}
