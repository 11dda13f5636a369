# The commands of this project; `make` lists them. CI calls the same ones.
#
# deploy/install.sh installs what a target needs; if nothing is missing, it returns at once.
# deploy/engine.sh run gives access to the engine, also to a user who has just joined the group docker.

SHELL := /bin/bash
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin
PY := .venv/bin/python
RUN := deploy/engine.sh run
SCRIPTS = .ci/run $(shell find deploy runtime-image -name '*.sh')

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help up demo down fleet fleet-down venv check fmt test e2e chaos bench bench-bounds compat fresh

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

up: ## Install what is missing and start SpawnAI on this machine
	@deploy/install.sh up
	@$(RUN) .venv/bin/spawnctl up --detach

demo: ## Like up, with canned answers in place of Claude: needs no key
	@deploy/install.sh up
	@$(RUN) .venv/bin/spawnctl up --detach --demo

down: ## Stop SpawnAI, and the Docker engine if `make up` started it and nobody else needs it
	@if [ -x .venv/bin/spawnctl ]; then $(RUN) .venv/bin/spawnctl down; fi
	@deploy/engine.sh stop

fleet: ## Start three container VPSes here, and add them to the running SpawnAI
	@deploy/install.sh fleet
	@$(RUN) deploy/fleet.sh join

fleet-down: ## Remove them from the pool, then delete them
	@$(RUN) deploy/fleet.sh leave

venv: ## Create the virtual environment .venv
	@deploy/install.sh venv

check: venv ## Formatting, lint, types, layers, shell scripts
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	@if command -v shellcheck >/dev/null; then echo shellcheck; shellcheck -x $(SCRIPTS); \
	else echo "shellcheck isn't installed: shell scripts are left unchecked"; fi

fmt: venv ## Format, and fix what lint can fix
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

test: ## The whole test suite; installs and starts the servers that it needs
	@deploy/install.sh test
	$(RUN) $(PY) -m pytest -n 3 --dist loadfile

e2e: ## Only the end-to-end tests
	@deploy/install.sh test
	$(RUN) $(PY) -m pytest -n 3 --dist loadfile tests/e2e

chaos: ## Break each part in every way, also the slow ones
	@deploy/install.sh test
	$(RUN) $(PY) -m pytest -n 2 --dist loadfile -m "chaos or not chaos" tests/chaos

bench: ## Measure this machine and print the table
	@deploy/install.sh bench
	$(RUN) $(PY) -m bench

bench-bounds: ## Attack an installation and measure what others notice (35 minutes)
	@deploy/install.sh bench
	$(RUN) $(PY) -m bench.bounds

compat: venv ## Write docs/compatibility.md from the tables that the tests try
	$(PY) -m tests.compat

fresh: ## Test `make up` inside a bare Debian 12 container
	@deploy/fresh.sh
