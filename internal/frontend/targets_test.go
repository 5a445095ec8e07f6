package frontend

import "testing"

// TestTargetsWithACheckComment: BuildKit's own list of targets panics at a check comment above an instruction.
func TestTargetsWithACheckComment(t *testing.T) {
	dockerfile := "# check=skip=all\nFROM scratch AS a\n# check=skip=JSONArgsRecommended\nCMD a\n\n# the second\nFROM a AS b\n"
	list, err := listTargets(t.Context(), []byte(dockerfile))
	if err != nil || len(list.Targets) != 2 || list.Targets[1].Name != "b" || list.Targets[1].Location.Ranges[0].Start.Line != 7 {
		t.Fatalf("%+v, %v", list, err)
	}
	if string(list.Sources[0]) != dockerfile {
		t.Errorf("its source became %q", list.Sources[0])
	}
}
