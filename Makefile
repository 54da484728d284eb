# Everything that is built, checked or measured. `make` alone says what there is.

CARGO ?= cargo
# A toolchain without rustfmt or clippy borrows another's: CARGO_FMT="cargo +nightly fmt".
CARGO_FMT ?= $(CARGO) fmt
CARGO_CLIPPY ?= $(CARGO) clippy

# cargo-deny is taken from the path, or built once (two to four minutes on two cores) and kept
# outside of the tree, where a fresh clone finds it again.
TOOLS ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/pagefold/tools
DENY_VERSION := 0.20.2
DENY := $(or $(shell command -v cargo-deny),$(TOOLS)/cargo-deny-$(DENY_VERSION)/bin/cargo-deny)

.DEFAULT_GOAL := help
.PHONY: help build test check-fmt fmt lint lint-workspace lint-encoded lint-guest docs deny unit-tests encoded-tests vm-tests host-tests examples fuzz machine-tests churn asan bench clean

help: ## say what there is (this text)
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

build: ## build the command: target/release/pagefold
	$(CARGO) build --release --locked

test: check-fmt lint docs deny unit-tests encoded-tests vm-tests host-tests examples fuzz ## everything that must pass before a change lands (needs /dev/kvm)

check-fmt:
	$(CARGO_FMT) --all --check
	$(CARGO_FMT) --all --check --manifest-path fuzz/Cargo.toml

fmt: ## format the sources
	$(CARGO_FMT) --all
	$(CARGO_FMT) --all --manifest-path fuzz/Cargo.toml

lint: lint-workspace lint-encoded lint-guest ## clippy over the workspace and the built-in guest's image

# The folding library once more as embedders build it: without what only its tests need.
lint-workspace:
	$(CARGO_CLIPPY) --workspace --all-targets --locked -- -D warnings
	$(CARGO_CLIPPY) --package pagefold-dedup --locked -- -D warnings

lint-encoded:
	$(CARGO_CLIPPY) --package pagefold-dedup --all-targets --features encoded-messages --locked -- -D warnings

# The image is built for another world (no std, no unwinding) and only with its own profile.
lint-guest:
	$(CARGO_CLIPPY) --package pagefold-guest --bin pagefold-guest-image --features freestanding \
		--profile guest --locked -- -D warnings

docs: ## the documentation of all crates, without warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

deny: $(DENY) ## licences, sources and doubled crates
	$(DENY) --locked check bans licenses sources

$(TOOLS)/cargo-deny-$(DENY_VERSION)/bin/cargo-deny:
	$(CARGO) install cargo-deny --version $(DENY_VERSION) --locked --root $(TOOLS)/cargo-deny-$(DENY_VERSION)

unit-tests: ## unit and property tests, and the examples in the documentation
	$(CARGO) test --workspace --lib --bins --locked
	$(CARGO) test --workspace --doc --locked

encoded-tests: ## the folding library's tests, with every message to a broker, and every answer, as bytes
	$(CARGO) test --package pagefold-dedup --features encoded-messages --lib --tests --locked

vm-tests: ## tests on real VMs, of the command itself, and of folding against the kernel's figures
	$(CARGO) test --workspace --exclude pagefold-amd-v-host --test '*' --locked

host-tests: ## tests on hardware virtualization, or in an AMD-V host that QEMU emulates (fetches Debian's kernels, once)
	$(CARGO) test --package pagefold-amd-v-host --test amd_v --locked

EXAMPLES := $(basename $(notdir $(filter-out examples/lib.rs examples/density.rs, $(wildcard examples/*.rs))))

examples: ## the programs in examples/ (needs /dev/kvm)
	@for example in $(EXAMPLES); do \
		echo "example $$example"; \
		$(CARGO) run --quiet --locked --package pagefold-examples --example $$example || exit 1; \
	done

# What cargo-fuzz passes, but for a sanitizer, which would need a nightly toolchain. The target by its name, so that
# only what runs in the fuzzer is traced.
FUZZ_TARGETS := $(basename $(notdir $(wildcard fuzz/targets/*.rs)))
FUZZ_SECONDS ?= 8
FUZZ_HOST := x86_64-unknown-linux-gnu
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module $(addprefix -Cllvm-args=-sanitizer-coverage-, level=4 \
	inline-8bit-counters pc-table trace-compares)

fuzz: ## made-up messages, requests, accesses and images, FUZZ_SECONDS for each target (needs a C++ compiler)
ifeq ($(shell command -v c++),)
	@echo "warning: nothing was fuzzed: there is no C++ compiler, which libFuzzer needs (g++)" >&2
else
	RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build --release --locked --manifest-path fuzz/Cargo.toml \
		--target $(FUZZ_HOST) --target-dir target/fuzz
	@for target in $(FUZZ_TARGETS); do \
		mkdir -p target/fuzz/corpus/$$target; \
		target/fuzz/$(FUZZ_HOST)/release/$$target -max_total_time=$(FUZZ_SECONDS) -max_len=1024 -timeout=10 \
			-print_final_stats=1 -artifact_prefix=target/fuzz/$$target- target/fuzz/corpus/$$target fuzz/corpus/$$target \
			> target/fuzz/$$target.log 2>&1 || { tail -n 100 target/fuzz/$$target.log; exit 1; }; \
		echo "$$target: $$(grep -o 'Done.*' target/fuzz/$$target.log)," \
			"coverage $$(grep -o 'cov: [0-9]*' target/fuzz/$$target.log | tail -n 1 | cut -c 6-)"; \
	done
endif

machine-tests: ## tests that change settings of the whole machine for a moment (need root, and it to themselves)
	$(CARGO) test --package pagefold-dedup --test machine --locked -- --ignored

PAGEFOLD_CHURN_SECONDS ?= 60

churn: ## guests that race folding, compaction and every knob for PAGEFOLD_CHURN_SECONDS, a minute (needs /dev/kvm)
	PAGEFOLD_CHURN_SECONDS=$(PAGEFOLD_CHURN_SECONDS) $(CARGO) test --release --package pagefold-tests --test churn --locked \
		-- --nocapture

# A sanitizer needs a nightly toolchain, and a target by its name, so that what runs in the compiler
# is built without it.
# Tests that use up all mappings of their process leave none for the sanitizer itself.
ASAN_TARGET := x86_64-unknown-linux-gnu

asan: ## the folding library's tests under AddressSanitizer (needs a nightly toolchain)
	@$(CARGO) +nightly --version > /dev/null 2>&1 || \
		{ echo "AddressSanitizer needs a nightly toolchain: rustup toolchain install nightly" >&2; exit 1; }
	RUSTFLAGS=-Zsanitizer=address $(CARGO) +nightly test --release --package pagefold-dedup --tests \
		--locked --target $(ASAN_TARGET) --target-dir target/asan -- --skip limit_of_mappings

bench: ## walks, index, steps, statistics, unmerging, leaving, breaks, folding against ksmd (both need root), and four VMs for 15 s
	$(CARGO) bench --package pagefold-dedup --bench walk --bench index --bench steps --bench stats --bench unmerge --bench leave --bench cow --locked
	$(CARGO) bench --package pagefold-tests --bench ksmd --locked
	$(CARGO) run --release --locked -- run -n 4 --memory 64M --guest builtin:mix --for 15s --settle

clean: ## remove what was built (the tools stay)
	$(CARGO) clean
