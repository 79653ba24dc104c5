# Every target sets up what it needs, on a fresh Debian machine with a Rust toolchain.

.PHONY: demo test check build bench bench-boot bench-format bench-release bench-fleet bench-swarm chaos crash-points endurance conformance guides deployments fuzz sanitize simulate setup
MUSL = x86_64-unknown-linux-musl
# With the tests that need more than a build. The whole workspace, so that nothing else is compiled anew.
EXTRAS = --workspace --features baton-e2e/guides,baton-e2e/deployments --locked

## demo: the whole product in a minute and a half, on this machine
demo: build
	target/release/baton demo

## test: every test
test: setup
	@scripts/setup test
	cargo build --workspace --locked
	cargo test --workspace --locked

## check: format, lints, structure, documentation
check: setup
	cargo xtask check

## build: the programs as people get them; the bootloader static
build: setup
	cargo build --workspace --release --locked
	cargo build --package baton-boot --profile boot --target $(MUSL) --locked
	install -m 755 target/$(MUSL)/boot/baton-boot target/release/baton-boot

## bench: speed, as ratios against a peer in the same run
bench: build
	@scripts/setup bench-boot
	cargo xtask bench
	cargo xtask bench boot supervision

## bench-boot: what the bootloader costs, beside its peers, and each goal beside its figure
bench-boot: build
	@scripts/setup bench-boot
	cargo xtask bench boot

## bench-format: what the sizes of the release format cost, on real trees
bench-format: setup
	@scripts/setup bench-format
	cargo run --release --locked --package baton-release --features push --example format -- target/format

## bench-release: what it costs to bring a tree and its changes to a member, beside rsync, casync, Docker, tar and cp; BENCH_DIR=DIR is where, BENCH_GROUPS=files is a part
BENCH_DIR = /var/tmp
bench-release: build
	@scripts/setup bench-release
	cargo xtask bench release $(BENCH_DIR) $(BENCH_GROUPS)

## bench-fleet: thousands of members with real sessions: notice, deploys, what control takes up, and how they come back; BENCH_PARTS=file is a part
bench-fleet: build
	@scripts/setup bench-fleet
	cargo xtask bench fleet $(BENCH_PARTS)

## bench-swarm: 20 and 60 containers updated by Docker Swarm and by baton deploy, under load; CONTAINERS=20 for others; as root
CONTAINERS = 20 60
bench-swarm: build
	@scripts/setup bench-swarm
	cargo xtask bench swarm $(CONTAINERS)

## crash-points: killed, failed and without power at every call by which a member changes its disk; half an hour
crash-points: setup
	BATON_CRASH_STRIDE=1 cargo test --package baton-release --features push --test it --locked crash:: -- --nocapture

## endurance: a thousand reloads in a row under as much load of every kind as the machine bears, and the peers' beside them; about a quarter of an hour
endurance: build
	@scripts/setup endurance
	target/release/baton-endurance

## chaos: a small fleet in which everything breaks while it deploys, for half an hour; MINUTES=2 and SEED=7 for others; as root
MINUTES = 30
chaos: build
	@scripts/setup chaos
	target/release/baton-chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) --record docs/chaos.md

## conformance: PID 1 as it should be, baton-boot beside its peers; INIT="tini --" for any other init alone
conformance: build
	@scripts/setup conformance
	target/release/baton-conformance $(INIT)

## guides: the programs of docs/guides, each reloaded under load; RELOADS=20 measures what the guides tell
guides: setup
	@scripts/setup guides
	cargo build --workspace --locked
	cargo build $(EXTRAS) --example axum
	cargo test $(EXTRAS) --test it guides:: -- --nocapture --test-threads 1

## fuzz: every fuzz target for a minute; SECONDS=600 for longer
SECONDS = 60
fuzz: setup
	@scripts/setup fuzz
	scripts/fuzz $(SECONDS)

## sanitize: the tests of the crate with unsafe code, with AddressSanitizer and LeakSanitizer
sanitize: setup
	scripts/sanitize

## deployments: the files of docs/how-to, checked; those of Docker run with a real engine, for which it must be root
deployments: setup
	@scripts/setup deployments
	cargo build --workspace --locked
	cargo build --package baton-boot --target $(MUSL) --locked
	cargo test $(EXTRAS) --test it deployments:: -- --nocapture --test-threads 1

## simulate: 10,000 rollouts of 4,000 members; SEEDS=1000 for fewer, SEEDS=10000..20000 for others
SEEDS = 10000
simulate:
	cargo run --release --quiet --package xtask -- simulate $(SEEDS)

setup:
	@scripts/setup
