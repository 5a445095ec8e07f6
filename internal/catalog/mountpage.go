package catalog

import (
	"time"

	"larder/internal/key"
)

// mountJSON is a cache mount in a page.
type mountJSON struct {
	Key      key.Digest    `json:"key"`
	ID       string        `json:"id"`
	Platform string        `json:"platform,omitempty"`
	United   bool          `json:"united,omitempty"`
	Segments []segmentJSON `json:"segments"`
	Saved    int64         `json:"saved"` // Unix seconds, as is used
	Used     int64         `json:"used"`
	Builds   int64         `json:"builds,omitempty"`
	Files    int64         `json:"files,omitempty"`
	Size     int64         `json:"size,omitempty"`
	Hit      int64         `json:"hit,omitempty"`
	Had      int64         `json:"had,omitempty"`
}

type segmentJSON struct {
	blobJSON
	Packs []blobJSON `json:"packs,omitempty"`
}

func jsonOf(m Mount) mountJSON {
	j := mountJSON{
		Key: m.Key, ID: m.ID, Platform: m.Platform, United: m.United, Saved: m.Saved.Unix(), Used: m.Used.Unix(),
		Builds: m.Builds, Files: m.Files, Size: m.Size, Hit: m.Hit, Had: m.Had,
	}
	for _, seg := range m.Segments {
		s := segmentJSON{blobJSON: blobOf(seg.Blob)}
		for _, p := range seg.Packs {
			s.Packs = append(s.Packs, blobOf(p))
		}
		j.Segments = append(j.Segments, s)
	}
	return j
}

func (j mountJSON) mount() Mount {
	m := Mount{
		Key: j.Key, ID: j.ID, Platform: j.Platform, United: j.United, Saved: time.Unix(j.Saved, 0).UTC(), Used: time.Unix(j.Used, 0).UTC(),
		Builds: j.Builds, Files: j.Files, Size: j.Size, Hit: j.Hit, Had: j.Had,
	}
	for _, s := range j.Segments {
		seg := Segment{Blob: s.desc()}
		for _, p := range s.Packs {
			seg.Packs = append(seg.Packs, p.desc())
		}
		m.Segments = append(m.Segments, seg)
	}
	return m
}
