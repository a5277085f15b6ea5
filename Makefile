# `make` alone lists what there is. Everything runs in .venv/, built from the hashed dev lock.
# Recipes use relative paths only, so the checkout may live in a folder with spaces.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

PYTHON_MIN := 3.11
# Found by running each: a version manager's shim may exist and still not work.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { command -v "$$python"; break; }; done)

# The checks and tests start hundreds of interpreters: without bytecode each would compile anew.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.ok
# Anything for the command behind a target: make test ARGS="-k ledger -x"
ARGS ?=
UPGRADE ?=

##@ Run it
.PHONY: help setup demo bench
help: ## show this list
	@awk -F ':.*## ' '/^##@ / { print "\n" substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## build .venv/ (every other target does it when needed)
	@echo "$(VENV)/ is ready."

demo: $(STAMP) ## start PostgreSQL, Valkey and workers, and watch them work
	@$(PY) -m worker demo $(ARGS)

bench: $(STAMP) ## measure throughput and latency on this machine
	@$(PY) -m tests.bench $(ARGS)

# A file stays in one process; files with slow tests come first (tests/conftest.py).
# Each process has its own servers, hence the bound.
ON_ALL_CORES := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

##@ Check it
.PHONY: test test-fast check check-rest format lint types imports lock-check generated chaos thorough fuzz matrix mutants without-bank image-check
test: $(STAMP) ## run the tests, on all cores
	@$(PY) -m pytest $(ON_ALL_CORES) $(ARGS)

test-fast: $(STAMP) ## run the tests that need no server, in seconds
	@$(PY) -m pytest $(ON_ALL_CORES) -m "not needs_servers and not slow" $(ARGS)

check: check-rest test ## everything a change must pass

check-rest: format lint types imports lock-check generated ## everything but the tests

format: $(STAMP) ## is the code formatted?
	@$(PY) -m ruff format --check .

lint: $(STAMP) ## ruff, all rules
	@$(PY) -m ruff check .

types: $(STAMP) ## mypy, strict
	@$(PY) -m mypy

imports: $(STAMP) ## do the packages know only whom they may?
	@$(VENV)/bin/lint-imports

generated: $(STAMP) ## are the contract and the lists of events and metrics fresh?
	@$(PY) -m worker contract --check

lock-check: $(STAMP) ## do the locks still fit pyproject.toml?
	@scratch=$$(mktemp -d) || exit 1; trap 'rm -rf "$$scratch"' EXIT; \
	cp requirements.lock requirements-dev.lock "$$scratch" || exit 1; \
	$(call recompile,$$scratch); \
	for lock in requirements.lock requirements-dev.lock; do \
		cmp -s "$$lock" "$$scratch/$$lock" || { \
			diff -U0 "$$lock" "$$scratch/$$lock" | grep '^[-+][a-z]' | head -20; \
			echo "$$lock is stale: run 'make lock' and commit it." >&2; exit 1; }; \
	done; \
	echo "The locks fit pyproject.toml."

chaos: $(STAMP) ## 10,000 transfers under every kind of fault, then the audit
	@$(PY) -m worker chaos --seed 1 --jobs 10000 --count 66 $(ARGS)

thorough: $(STAMP) ## try ten times the examples that make test tries
	@TELLER_THOROUGH=1 $(PY) -m pytest $(ON_ALL_CORES) -m examples $(ARGS)

fuzz: $(STAMP) ## 100,000 hostile messages, and a healthy job every hundredth
	@$(PY) -m tests.fuzz --messages 110000 --seed 1 $(ARGS)

matrix: $(STAMP) ## the tests that speak to PostgreSQL, on 14 to 17 (another: ARGS="18", all: ARGS="14 --all")
	@$(PY) -m tests.matrix $(ARGS)

mutants: $(STAMP) ## plant bugs, one at a time: does a test see each?
	@$(PY) -m tests.mutations $(ARGS)

without-bank: $(STAMP) ## delete the bank from a copy: do the machine's tests pass there?
	@$(PY) .ci/without-bank $(ON_ALL_CORES) $(ARGS)

image-check: $(STAMP) ## build the container image, run it, and check what it promises
	@deploy/image-check $(ARGS)

##@ Change it
.PHONY: fmt lock pictures clean
fmt: $(STAMP) ## format the code and apply safe fixes
	@$(PY) -m ruff check --fix-only --quiet .
	@$(PY) -m ruff format .

lock: $(STAMP) ## recompile both locks (to newer versions: UPGRADE=--upgrade)
	@$(call recompile,.)

pictures: $(STAMP) ## draw the pictures of docs/ anew
	@$(PY) -m tests.pictures

clean: ## remove .venv/, caches and the demo's data
	@rm -rf $(VENV) .teller .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A lock that exists keeps its versions: only what pyproject.toml asks for changes.
COMPILE := $(PY) -m uv pip compile --quiet --universal --python-version $(PYTHON_MIN) \
	--generate-hashes --no-header $(UPGRADE) pyproject.toml

# uv reads none of pip's settings, so a mirror and its certificates are passed on. What uv says
# may name the registry's host, which belongs in nobody's log.
define recompile
$(UV_CACHE); export UV_SYSTEM_CERTS="$${UV_SYSTEM_CERTS:-1}"; \
index=$${PIP_INDEX_URL:-$$("$(PYTHON)" -m pip config get global.index-url 2>/dev/null)}; \
cert=$${PIP_CERT:-$$("$(PYTHON)" -m pip config get global.cert 2>/dev/null)}; \
[ -z "$$index" ] || export UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$index}"; \
[ -z "$$cert" ] || export SSL_CERT_FILE="$${SSL_CERT_FILE:-$$cert}"; \
said=$$( { $(COMPILE) -o "$(1)/requirements.lock" && \
	$(COMPILE) --extra desk --extra embedded --group dev -o "$(1)/requirements-dev.lock"; } 2>&1 ) || { \
	printf '%s\n' "$$said" | sed 's|[a-z]*://[^ ]*|<registry>|g' >&2; \
	case "$$said" in *"Failed to fetch"*|*"error sending request"*) \
		echo "The package registry cannot be reached, so the locks were not compiled." >&2;; esac; \
	exit 1; }
endef

# uv keeps its cache at home, and stops where there is none.
UV_CACHE := [ -w "$${UV_CACHE_DIR:-$$HOME}" ] || export UV_NO_CACHE=1

# Both install the same hashed wheels; uv is faster, pip knows the settings of pip.
define install_with_uv
{ $(UV_CACHE); } && uv venv --quiet --clear --python "$(PYTHON)" $(VENV) && \
uv pip install --quiet --python $(PY) --require-hashes --only-binary :all: -r requirements-dev.lock
endef

define install_with_pip
{ "$(PYTHON)" -m venv --clear $(VENV) >/dev/null || { \
	echo "Python cannot make a virtual environment. On Debian or Ubuntu: apt install python3-venv" >&2; \
	exit 2; }; } && \
$(PY) -m pip install -qq --disable-pip-version-check --require-hashes --only-binary :all: \
	-r requirements-dev.lock
endef

# Half an environment is worse than none: whatever ends this, it is whole or gone.
$(STAMP): requirements-dev.lock
	@test -n "$(PYTHON)" || { echo "No Python $(PYTHON_MIN) or newer works here:" \
		"install one, or say make PYTHON=/path/to/python." >&2; exit 2; }
	@echo "Building $(VENV)/ with $(PYTHON) ..."
	@rm -rf $(VENV); trap 'test -e $@ || rm -rf $(VENV)' EXIT; trap 'exit 130' INT TERM; \
	{ command -v uv >/dev/null && $(install_with_uv); } || { $(install_with_pip); } && touch $@
