# Everything here needs Go (and, for the race detector, a C compiler: without one it is left out). Root or not,
# no Docker. Tests with Postgres find one on the machine or fetch it. `make help` lists the targets.

ifeq (,$(shell command -v go))
$(error Go 1.26 or later is needed: https://go.dev/dl/)
endif

VERSION ?= $(shell git -c 'safe.directory=*' describe --tags --always --dirty 2>/dev/null || echo dev)
# Flags for the programs that run and bench start: make run ARGS='--http 127.0.0.1:8081'
ARGS ?=
# Build tags: make build TAGS=openssl signs with RSA in a third of the time (needs cgo and OpenSSL 3's headers).
TAGS ?=

# The version is ours to stamp: go build fails over it in a tree that belongs to another user.
export GOFLAGS := $(strip $(shell go env GOFLAGS) -buildvcs=false)

LINT_VERSION := 2.15.0
LINT := bin/tools/golangci-lint-$(LINT_VERSION)

# Packages without Postgres, quick enough to run under the race detector at every check. test-full takes all.
SMALL := $(addprefix ./,$(wildcard sender sender/bounce sender/compose sender/deliver sender/sandbox jobs loadtest))
RACE = $(if $(filter 1,$(shell go env CGO_ENABLED)),-race)

# All tests together may take 12 minutes. At a terminal, where Ctrl-C would not reach through timeout(1), or
# without one, each package may.
LIMIT := $(if $(MAKE_TERMOUT),,$(if $(shell command -v timeout),timeout -k 30 12m))

.DEFAULT_GOAL := build
.PHONY: build run test test-full check format vet lint house race bench clean help

build: ## build bin/postrider and bin/loadtest (the default)
	@echo "build: bin/postrider and bin/loadtest, version $(VERSION); make help lists the targets"
	@go build -trimpath -tags '$(TAGS)' -ldflags '-X main.version=$(VERSION)' -o bin/ ./cmd/...

run: build ## build, then run the whole system on this machine: bin/postrider dev $(ARGS)
	@echo "run: bin/postrider dev $(ARGS)"
	@exec bin/postrider dev $(ARGS)

# e2e tests a program that it builds itself, so the cache of test results cannot know when it is stale.
test: ## all tests, on real parts, within 12 minutes
	@echo "test: every package, then the program from outside (e2e); at most 12 minutes"
	@$(LIMIT) sh -c 'status=0; \
		go test -timeout 12m $$(go list ./... | grep -v /e2e) || status=1; \
		if [ -d e2e ]; then go test -count=1 -timeout 12m ./e2e/... || status=1; fi; \
		exit $$status'

test-full: ## all tests anew under the race detector, within an hour
	@echo "test-full: every package, nothing from the cache$(if $(RACE),, and no race detector: it needs a C compiler)"
	@sh sender/compose/testdata/verify/install.sh bin/tools/dkim
	@POSTRIDER_FULL=1 DKIM_VERIFIERS=$(CURDIR)/bin/tools/dkim go test $(RACE) -count=1 -timeout 60m ./...

check: format vet lint house race ## format, vet, lint, house rules, race tests of the small packages

format:
	@echo "format: gofmt on every file"
	@files=$$(gofmt -l .) && if [ -n "$$files" ]; then echo "not formatted, run gofmt -w on:" >&2; echo "$$files" >&2; exit 1; fi

vet:
	@echo "vet: go vet on every package"
	@go vet ./...

lint: $(LINT)
	@echo "lint: golangci-lint $(LINT_VERSION) with .golangci.yml"
	@$(LINT) run --allow-parallel-runners ./...

$(LINT):
	@mkdir -p $(@D)
	@if golangci-lint version 2>/dev/null | grep -q 'version v\{0,1\}$(LINT_VERSION) '; then \
		ln -sf "$$(command -v golangci-lint)" $@; \
	else \
		echo "lint: building golangci-lint $(LINT_VERSION) into bin/tools, once, a minute or two"; \
		GOBIN="$(CURDIR)/$(@D)" go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v$(LINT_VERSION) && \
		mv $(@D)/golangci-lint $@; \
	fi

house:
	@echo "house: the import table and the limits of house_test.go"
	@go test -count=1 -v .

race:
	@echo "race: $(SMALL)$(if $(RACE),, without the race detector: it needs a C compiler)"
	@go test $(RACE) -timeout 5m $(SMALL)

bench: build ## measure speed and cost beside Postfix: bin/loadtest bench $(ARGS)
	@echo "bench: bin/loadtest bench --postrider bin/postrider $(ARGS)"
	@bin/loadtest bench --postrider bin/postrider $(ARGS)

clean: ## remove bin/; what postrider dev stored in .postrider stays
	@echo "clean: removing bin/"
	@rm -rf bin

help: ## this list
	@echo "help: make TARGET, with ARGS='…' for the programs"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
