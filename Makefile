# The verbs. Anything with an `if` in it lives in xtask.
# PHP_CONFIG chooses the PHP that the engine object is built for.
PHP_CONFIG ?= php-config8.2
export PHP_CONFIG
XTASK = cargo run --quiet --package xtask --

.PHONY: deps build demo test bench conformance soak service apps e2e-jaeger fuzz fmt lint install

deps: ## install what is missing from Debian's packages, and say what was done
	@sh xtask/deps.sh

build: deps ## a release binary that runs in place: target/release/glasspool
	@$(XTASK) build --release

demo: build ## serve examples/demo with tracing to the terminal
	target/release/glasspool serve examples/demo --slow 250ms

test: deps ## every test, with real PHP, nginx and an OTLP receiver
	@$(XTASK) test

bench: build ## stock php-fpm and Glasspool side by side; ratios and a verdict (BENCH='--only cpu')
	cargo run --release --quiet --package glasspool-benches -- $(BENCH)

conformance: deps ## responses compared with stock php-fpm, byte by byte, and php-src's own FPM tests, twice (CONFORMANCE='--filter status-*')
	@$(XTASK) conformance $(CONFORMANCE)

soak: build ## 1,000 reloads during 100,000 requests, and reloads with broken files (SOAK='--reloads 50')
	@$(XTASK) soak $(SOAK)

service: build ## start, reload, stop and status by a service manager, with Debian's own php-fpm.conf
	@$(XTASK) service

apps: build ## WordPress and MediaWiki behind nginx: make apps APPS=DIR
	@$(XTASK) apps --apps $(APPS)

e2e-jaeger: build ## a real Jaeger, built by Go, shows the spans of a slow query (JAEGER='--wordpress FILE')
	@$(XTASK) e2e-jaeger $(JAEGER)

fuzz: deps ## each fuzz target for 60 s (SECONDS=n for another time)
	@$(XTASK) fuzz

fmt: ## format all code
	cargo fmt --all

lint: deps ## formatting, clippy with warnings denied, and the tidy rules
	@$(XTASK) lint

install: build ## PREFIX (default /usr/local), DESTDIR; PHP_FPM_LINK=1 for a php-fpm beside it
	@$(XTASK) install
