# make help lists the targets. Everything that is slow to make (base images, other builders) is kept in LARDER_DEV_CACHE.

SHELL := /bin/bash
.DELETE_ON_ERROR:

export LARDER_DEV_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/larder-dev
export CGO_ENABLED ?= $(if $(RACE),1,0)

GO       ?= go
VERSION  ?=
PEERS    := $(LARDER_DEV_CACHE)/peers
BUILDKIT := github.com/moby/buildkit/cmd
FUZZTIME ?= 1m
# More flags for go test, such as -run or -v; RACE=1 adds the race detector.
TESTFLAGS ?=
TEST := $(GO) test -timeout 30m $(if $(RACE),-race) $(TESTFLAGS)

.PHONY: build
build: ## build bin/larder
	$(GO) build -trimpath -ldflags '-s -w $(if $(VERSION),-X larder/internal/cli.version=$(VERSION))' -o bin/larder ./cmd/larder

.PHONY: deps
deps: ## install the Debian packages that tests, demo and benches need
	hack/deps.sh

.PHONY: bases
bases: deps ## make the base images of tests, demo and benches, each once
	$(GO) run ./hack/bases

.PHONY: peers
peers: ## build the builders that larder is compared with
	mkdir -p $(PEERS)
	cd bench/peers && $(GO) build -o $(PEERS)/ $(BUILDKIT)/buildkitd $(BUILDKIT)/buildctl

.PHONY: s3server
s3server: ## build the S3 server that tests use
	mkdir -p $(PEERS)
	cd internal/remote/s3/peer && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $(PEERS)/ github.com/versity/versitygw/cmd/versitygw

.PHONY: demo
demo: deps build ## build, edit, rebuild and push a real project, and read it back with skopeo
	$(GO) run ./hack/bases debian golang
	$(GO) build -o bin/devregistry ./hack/devregistry
	demo/run.sh

.PHONY: test
test: bases build s3server ## run all tests, with short parts of soak and fuzzing; none may be skipped without leave
	set -o pipefail; $(TEST) -json ./... | $(GO) run ./hack/testgate -allow .ci/allowed-skips

.PHONY: race
race: ## run the tests with the race detector
	$(MAKE) RACE=1 CGO_ENABLED=1 test

.PHONY: conformance
conformance: deps build peers ## build every Dockerfile of the corpus with larder and BuildKit, and compare the images
	$(GO) run ./conformance -larder bin/larder -buildkit $(PEERS) $(CONFORMANCEFLAGS)

.PHONY: bench
bench: bases build peers ## larder and BuildKit in turn: times, memory, traffic (BENCHFLAGS="-workloads go -runs 5")
	$(GO) build -o bin/bench ./bench
	bin/bench -peers $(PEERS) $(BENCHFLAGS)

.PHONY: soak
soak: bases build peers s3server ## what is too long for make test: kills, concurrent builds, long property tests
	LARDER_SOAK=1 $(GO) test -timeout 3h -count 1 -v -run Soak $(TESTFLAGS) ./...

.PHONY: fuzz
fuzz: ## fuzz each parser of outside bytes for FUZZTIME
	hack/fuzz.sh $(FUZZTIME)

.PHONY: lint
lint: ## gofmt, vet, staticcheck, and this repository's own rules
	hack/lint.sh

.PHONY: check
check: lint ## what CI runs: lint, then the tests, none from a cache
	$(MAKE) TESTFLAGS='-count 1 $(TESTFLAGS)' test

.PHONY: clean
clean: ## remove what was built here; the cache stays
	rm -rf bin

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
