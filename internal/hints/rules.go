package hints

import "github.com/moby/buildkit/frontend/dockerfile/linter"

// rule is a rule in the form in which BuildKit has its own, so that "# check=skip=" does the same for both.
type rule = linter.LinterRule[struct{}]

var (
	ruleTimestamp = &rule{
		Name:        "CacheTimestamp",
		Description: "A time that a RUN writes makes its result another one each time it runs",
	}
	ruleArgTooEarly = &rule{
		Name:        "CacheArgTooEarly",
		Description: "An ARG that changes with each build should be declared below the RUNs that do not use it",
	}
	ruleReadsGit = &rule{
		Name:        "CacheReadsGit",
		Description: "A RUN that reads .git runs again after each commit",
	}
	ruleListsContext = &rule{
		Name:        "CacheListsContext",
		Description: "A RUN that looks at the whole build context runs again after any change to it",
	}
	ruleReadsUnrelated = &rule{
		Name:        "CacheReadsUnrelated",
		Description: "A RUN that reads documentation or build settings runs again when those change",
	}
	ruleUnobserved = &rule{
		Name:        "CacheUnobserved",
		Description: "A RUN whose inputs cannot be observed runs again after any change to them",
	}
	ruleStaleLists = &rule{
		Name:        "CacheStaleLists",
		Description: "Package lists should be updated in the RUN that installs from them",
	}
	ruleMovingDownload = &rule{
		Name:        "CacheMovingDownload",
		Description: "A download that names no version is not fetched again when it changes",
	}
	ruleMovingBase = &rule{
		Name:        "CacheMovingBase",
		Description: "A base image without a version makes all steps on it run whenever it moves",
	}
)
