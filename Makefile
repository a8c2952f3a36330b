# Every target is one short recipe; `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
GO ?= go
DIR ?= ./var
TAGS ?=
CEPH_TAGS ?= ceph,pacific
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)

.PHONY: help deps test-deps build run test race test-full fuzz lint demo bench-deps bench bench-small bench-formats bench-stores bench-boot install clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

deps: ## install what building and running need (Debian packages); TAGS as for build
	@contrib/packages.sh build $(if $(findstring ceph,$(TAGS)),ceph)

test-deps: ## install what the tests need besides
	@contrib/packages.sh build ceph test
	@GO=$(GO) contrib/testbed/versitygw.sh install

build: ## bin/glanced and bin/glancectl; with stores of type rbd: make deps build TAGS=ceph,pacific (Debian 12; TAGS=ceph from Ceph 18 on)
	$(GO) build -trimpath $(if $(TAGS),-tags $(TAGS)) -ldflags '-X main.stamped=$(VERSION)' -o bin/ ./cmd/...

run: deps build ## start the daemon in the foreground, everything below ./var
	@exec bin/glanced --dir $(DIR) $(RUN_FLAGS)

test: test-deps build ## every test, with the race detector
	GLANCED_MUST_RUN=1 $(GO) test -race -timeout 20m ./...
	GLANCED_MUST_RUN=1 $(GO) test -race -tags $(CEPH_TAGS) -timeout 20m ./backends/rbd ./backends/all
	GLANCED_MUST_RUN=1 $(GO) test -tags $(CEPH_TAGS) -timeout 20m -run Ceph ./cmd/glanced
	GLANCED_MUST_RUN=1 $(GO) test -tags purego ./formats ./formats/codec ./formats/encode
	GLANCED_MUST_RUN=1 $(GO) test -tags purego -run Liblzma ./formats/container/compressed

test-full: test lint fuzz demo ## all that takes long too: hundreds of kills, long fuzzing, a whole Debian disk, Ceph's gateway, Swift with Keystone
	@contrib/packages.sh full
	GLANCED_MUST_RUN=1 GLANCED_CEPH=1 $(GO) test -count=1 -timeout 30m -run Ceph ./backends/...
	GLANCED_MUST_RUN=1 GLANCED_KEYSTONE=1 $(GO) test -count=1 -timeout 30m -run Keystone ./backends/swift
	GLANCED_MUST_RUN=1 GLANCED_KILL_ROUNDS=200 $(GO) test -count=1 -timeout 60m -run Killed ./cmd/glanced ./backends/cache
	GLANCED_MUST_RUN=1 GLANCED_HOSTILE_ALL=1 $(GO) test -count=1 -timeout 30m -run 'Hostile|NoName' ./cmd/glancectl

fuzz: ## each fuzz target for FUZZTIME (default 60s); those that match FUZZ, if it is set
	@contrib/fuzz.sh $(or $(FUZZTIME),60s) $(FUZZ)

lint: ## gofmt, go vet, staticcheck
	@contrib/packages.sh build ceph
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'gofmt would change these'; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) vet -tags $(CEPH_TAGS) ./backends/rbd ./cmd/glanced
	$(GO) tool staticcheck -tags $(CEPH_TAGS) ./backends/rbd ./cmd/glanced

demo: test-deps build ## a real disk in, and out over NBD, FUSE and HTTP; a Debian boots from S3 (DEMO_FLAGS=--small for a quicker one)
	contrib/demo/demo.sh $(DEMO_FLAGS)

bench-deps: test-deps ## install what the benchmarks need besides
	@contrib/packages.sh bench

bench: bench-deps build ## ours and qemu-nbd side by side; figures land in contrib/bench
	$(GO) run ./contrib/bench $(BENCH_FLAGS)

bench-small: bench-deps build ## small reads of a whole disk, holes too, at depth 1 and 32 (BENCH_FLAGS=--small for a quick one)
	$(GO) run ./contrib/bench small $(BENCH_FLAGS)

bench-formats: bench-deps build ## glancectl and qemu-img read a disk in every format; what small reads cost (BENCH_FLAGS=--small for a quick one)
	$(GO) run ./contrib/bench formats $(BENCH_FLAGS)

bench-stores: bench-deps build ## images in an S3 server that is far away, read through the cache and uploaded, beside curl, qemu, nbdkit and minio-go (BENCH_FLAGS=--small for a quick one)
	$(GO) run ./contrib/bench stores $(BENCH_FLAGS)
	$(if $(findstring -only,$(BENCH_FLAGS)),,$(GO) run ./contrib/bench boot $(filter --small,$(BENCH_FLAGS)))

bench-boot: bench-deps build ## the last part of it, unless BENCH_FLAGS has -only: a Debian boots from there, or is fetched by curl first (BENCH_FLAGS=--small for a quick one)
	$(GO) run ./contrib/bench boot $(BENCH_FLAGS)

install: build ## into PREFIX (default /usr/local), with the systemd unit and a sample configuration
	install -D -m 0755 -t $(DESTDIR)$(or $(PREFIX),/usr/local)/bin bin/glanced bin/glancectl
	install -D -m 0644 contrib/systemd/glanced.service $(DESTDIR)/lib/systemd/system/glanced.service
	install -D -m 0644 contrib/systemd/glanced.sysusers $(DESTDIR)/usr/lib/sysusers.d/glanced.conf
	test -e $(DESTDIR)/etc/glance/glanced.toml || install -D -m 0640 contrib/glanced.toml $(DESTDIR)/etc/glance/glanced.toml

clean: ## remove what was built
	rm -rf bin
