package build

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"larder/internal/fault"
)

// Refresh says from which age on the results of RUN steps are made anew, so that what they fetched from outside (packages of a
// distribution, say) does not grow old. The zero value lets all results stay.
type Refresh struct {
	all    time.Duration
	stages map[string]time.Duration
}

// ParseRefresh reads --refresh: an age, or STAGE=AGE, which wins for that stage; 0 lets its results stay. Ages are Go's durations, or
// whole days and weeks: 36h, 7d, 2w.
func ParseRefresh(list []string) (Refresh, error) {
	r := Refresh{stages: map[string]time.Duration{}}
	for _, s := range list {
		stage, age, one := strings.Cut(s, "=")
		if !one {
			age = s
		}
		d, err := parseAge(age)
		if err != nil || one && stage == "" {
			return r, fault.Errorf(fault.Usage, "--refresh %s: an age such as 7d or 36h is expected, or STAGE=AGE", s)
		}
		if one {
			r.stages[strings.ToLower(stage)] = d
		} else {
			r.all = d
		}
	}
	return r, nil
}

func parseAge(s string) (time.Duration, error) {
	unit := map[byte]time.Duration{'d': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	if s == "0" {
		return 0, nil
	}
	if len(s) > 1 {
		if u, ok := unit[s[len(s)-1]]; ok {
			n, err := strconv.Atoi(s[:len(s)-1])
			if err == nil && (n <= 0 || time.Duration(n) > 36500*24*time.Hour/u) {
				err = fault.Errorf(fault.Usage, "out of range")
			}
			return time.Duration(n) * u, err
		}
	}
	d, err := time.ParseDuration(s)
	if err == nil && d <= 0 {
		err = fault.Errorf(fault.Usage, "out of range")
	}
	return d, err
}

// stepName is how the Dockerfile frontend names a step: "[linux/amd64 deps 2/5] RUN ...", without the platform where there is one
// only, without the stage where that is the only one, or has no name and is the last.
var stepName = regexp.MustCompile(`^\[(?:[a-z0-9]+/[a-z0-9/]+(?:-> *[a-z0-9/]+)? )?(?:(\S+) +)?\d+/\d+\] `)

// of is the age for a step.
func (r Refresh) of(step string) time.Duration {
	if m := stepName.FindStringSubmatch(step); m != nil {
		if d, ok := r.stages[strings.ToLower(m[1])]; ok {
			return d
		}
	}
	return r.all
}
