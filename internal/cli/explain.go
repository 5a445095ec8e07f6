package cli

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"larder/internal/build"
	"larder/internal/fault"
	"larder/internal/report"
)

// earlier is what is known of the builds before.
type earlier interface {
	Builds() ([]string, error) // their IDs, the last build's at the end
	Explanation(id string) (*report.Build, error)
}

// withEarlier lets a command look at the builds before.
type withEarlier func(cmd *cobra.Command, do func(builds earlier) error) error

func explainCommand(e *env, builds withEarlier) *cobra.Command {
	var asJSON bool
	var reads string
	cmd := &cobra.Command{
		Use:   "explain [BUILD]",
		Short: "Say why each step of a build ran, or what spared it",
		Long: "Say why each step of a build ran, or what spared it. BUILD is an ID or the beginning of one, as the first line shows it;\n" +
			"without it the last build is explained. Each build is compared with the one before it that built the same.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage("%s takes one build, not %d arguments\nSee '%s --help'.", cmd.CommandPath(), len(args), cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := e.settings.fill(cmd.Flags(), lookupEnv); err != nil {
				return err
			}
			if asJSON && cmd.Flags().Changed("reads") {
				return usage("--reads does not go with --json, which has what every step looked at")
			}
			return builds(cmd, func(builds earlier) error {
				id, err := pick(builds, strings.Join(args, ""))
				if err != nil {
					return err
				}
				b, err := builds.Explanation(id)
				switch {
				case err != nil:
					return fault.Errorf(fault.Build, "what is known of build %s cannot be read: %w; 'larder explain BUILD' explains another", id, err)
				case asJSON:
					return printJSON(e.out, b)
				case cmd.Flags().Changed("reads"):
					return report.Reads(e.out, b, reads)
				}
				return report.Text(e.out, b, time.Now())
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print all that is known as JSON (docs/formats.md)")
	cmd.Flags().StringVar(&reads, "reads", "", "List what a RUN step looked at: its number, such as 3/5, or a part of its name")
	cmd.Flags().SetAnnotation("reads", commandLineOnly, []string{"true"})
	cmd.Flags().SetAnnotation("json", commandLineOnly, []string{"true"})
	return cmd
}

// pick finds a build by its ID or the beginning of one; the last build where that is empty.
func pick(builds earlier, prefix string) (string, error) {
	ids, err := builds.Builds()
	if err != nil {
		return "", err
	}
	if len(ids) == 0 {
		return "", fault.Errorf(fault.Build, "no build is known here yet: 'larder build' notes why its steps run, --root says where")
	}
	last := ids[len(ids)-1]
	if prefix == "" {
		return last, nil
	}
	found := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !strings.HasPrefix(id, prefix) })
	switch {
	case slices.Contains(found, prefix):
		return prefix, nil
	case len(found) == 0:
		return "", fault.Errorf(fault.Build, "no build %q is known here; the last one is %s", prefix, last)
	case len(found) > 1:
		return "", fault.Errorf(fault.Build, "%q begins the IDs of %d builds, say more of it:\n  %s", prefix, len(found),
			strings.Join(found[max(0, len(found)-10):], "\n  "))
	}
	return found[0], nil
}

// withPast is a withEarlier: the local root is not opened for it.
func (e *env) withPast(cmd *cobra.Command, do func(builds earlier) error) error {
	root, _ := cmd.Flags().GetString("root")
	past, err := build.OpenPast(root)
	if err != nil {
		return err
	}
	return do(past)
}
