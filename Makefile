# SPDX-License-Identifier: MIT
# Each target sets up what it needs in .venv by itself: 'make demo' works on a fresh clone.
# Needs GNU make and Python 3.10 or newer; another Python: make PYTHON=python3.12 (after 'make clean').

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input --quiet --quiet
# Requirements of the interpreter: it is new enough, and can make a venv (a separate package on Debian).
PROBE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))
# Your own python3 first, then the tested versions, newest first.
PYTHONS := python3 python3.13 python3.12 python3.11 python3.10 python3.14 python

# One stamp for each set of extras, made again when the metadata change.
STAMPS := $(VENV)/.stamps
METADATA := setup.cfg setup.py pyproject.toml

INPUT ?=
ARGS ?=

# Compiled modules are made, and used, only where that is asked for: an edited source must not be tested without effect.
export AEMP_PURE_PYTHON ?= 1

.DEFAULT_GOAL := help
# Two pips in one venv at once break it.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help venv demo test test-fast test-thorough coverage test-patched compiled test-compiled test-hammering \
	lint types soak fuzz bench plots docs format clean

help: ## list the targets
	@echo "Usage: make TARGET"
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  \1:\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F: '{ printf "%-14s %s\n", $$1, $$2 }'

venv: $(STAMPS)/dev ## set up .venv with everything a developer needs

demo: $(STAMPS)/run ## watch four processes exchange messages and die; INPUT=file counts the words of that file
	@$(PY) examples/demo.py $(if $(INPUT),--input "$(INPUT)")

# Many tests wait for processes and for time to pass, so two workers for each processor keep it busy.
WORKERS := $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) * 2 )))
TESTS := -m pytest --numprocesses $(WORKERS) --maxprocesses 6 --dist worksteal
# pytest-xdist prints nothing while its workers collect.
COLLECTING := echo "Collecting more than 8,000 tests takes 10 to 20 seconds; then progress is shown."

test: $(STAMPS)/test ## run the tests; ARGS='-k name' is handed to pytest
	@$(COLLECTING)
	@$(PY) $(TESTS) $(ARGS)

test-fast: $(STAMPS)/test ## run the tests that take less than a quarter of a second each
	@$(COLLECTING)
	@$(PY) $(TESTS) -m 'not slow' $(ARGS)

# Tests marked no_cover install a tracer of their own, or measure time, memory or steps. These, and those that repeat one
# thing again and again, take long under coverage's tracer, and reach few lines that no other test reaches.
REPEATED := no_cover or thorough or hypothesis

coverage: $(STAMPS)/test ## run most of the tests, and measure which lines and branches they reach
	@$(PY) -m coverage erase
	@$(COLLECTING)
	@$(PY) $(TESTS) -m 'not ($(REPEATED))' --cov= $(ARGS)

# Only these modules have some: to collect the others takes each worker longer than most tests.
REPEATING := $(shell grep -rlE 'no_cover|hypothesis|support\.thoroughness' tests --include='test_*.py')

test-thorough: ## run the tests that coverage leaves out, with all their seeds and examples; TIMES=10 repeats more
	@AEMP_TEST_THOROUGH=1 AEMP_TEST_TIMES=$(TIMES) $(MAKE) --no-print-directory test \
		ARGS="-m '$(REPEATED)' -o faulthandler_timeout=$$((240 * $(or $(TIMES),1))) $(or $(ARGS),$(REPEATING))"

# Where a patched process differs most: the loop, native threads, waiting, and what gevent itself provides. Tests of
# forks, patching, browsers and the workers of gunicorn and Locust are left out, because they run programs that decide
# themselves whether to patch.
PATCHED_TESTS := tests/addresses tests/ports/test_receive.py tests/calls tests/links/test_heartbeat.py \
	tests/peers/test_network.py tests/node/test_node.py tests/node/test_running.py tests/node/test_shutdown.py \
	tests/contrib/locust_rpc \
	$(filter-out %_page.py %_workers.py %_itself.py %/test_locust.py %_tests.py, $(wildcard tests/contrib/test_*.py))
MORE_PATCHED_TESTS := tests/runtime tests/toolkit

# Two processes by hand, because pytest-xdist cannot be patched. What the second prints is shown after the first.
test-patched: $(STAMPS)/test ## run some of the tests in monkey-patched processes; ARGS=tests runs all in one
ifdef ARGS
	@AEMP_TEST_PATCH=1 $(PY) -m pytest $(ARGS)
else
	@more=$$(mktemp); trap 'rm -f $$more' EXIT; \
	AEMP_TEST_PATCH=1 $(PY) -m pytest $(MORE_PATCHED_TESTS) >$$more 2>&1 & \
	AEMP_TEST_PATCH=1 $(PY) -m pytest $(PATCHED_TESTS); failed=$$?; \
	wait $$! || failed=1; cat $$more; exit $$failed
endif

# Beside their sources. What did not change is not compiled again.
compiled: $(STAMPS)/test ## compile the hot modules, for AEMP_PURE_PYTHON= and for test-compiled; needs a C compiler
	@AEMP_PURE_PYTHON=0 $(PY) setup.py --quiet build_ext --inplace

# What runs compiled code most of the time, and the simulations of links. The rest is not worth its time in .ci/run.
COMPILED_TESTS := tests/ports tests/node tests/calls tests/peers tests/links tests/toolkit tests/otp tests/test_compiled.py \
	tests/transport tests/contrib/test_opentelemetry.py

test-compiled: compiled ## run the tests of the compiled modules with them; ARGS=tests runs all but slow ones
	@$(COLLECTING)
	@AEMP_PURE_PYTHON=0 $(PY) $(TESTS) -m 'not slow or thorough' $(or $(ARGS),$(COMPILED_TESTS))

# No switch of threads is assumed at a place that compiled code does not have, and none forgotten that it has.
test-hammering: compiled ## repeat the tests that send from many threads, with the compiled modules; TIMES=50
	@AEMP_PURE_PYTHON=0 AEMP_TEST_TIMES=$(or $(TIMES),50) $(PY) $(TESTS) tests/runtime/test_hammering_threads.py $(ARGS)

lint: $(STAMPS)/lint ## check style, format, types and floors
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	@$(MAKE) --no-print-directory types
	$(VENV)/bin/lint-imports

# At once, because each keeps one processor busy. What mypy prints is shown after the rest.
types: $(STAMPS)/lint ## check the types, with mypy and with pyright
	@more=$$(mktemp); trap 'rm -f $$more' EXIT; \
	$(PY) -m mypy >$$more 2>&1 & \
	$(PY) -m pyright --pythonpath $(PY); failed=$$?; \
	wait $$! || failed=1; cat $$more; exit $$failed

soak: $(STAMPS)/run ## break real processes and simulated networks for a while; SECONDS=300 SEED=n
	@$(PY) -m soak --seconds $(or $(SECONDS),300) $(if $(SEED),--seed $(SEED))

fuzz: $(STAMPS)/fuzz ## try what hostile peers may send for a while; SECONDS=600 SEED=n
	@$(PY) -m fuzz --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED))

bench: $(STAMPS)/run ## measure, beside the ceiling of bare gevent or COMPARE=<git revision>; ARGS goes to the runner
	@$(PY) -m benchmarks $(if $(COMPARE),--compare $(COMPARE)) $(ARGS)

plots: $(STAMPS)/bench ## write the tables and pictures of the page on performance from benchmarks/performance.jsonl
	@$(PY) -m benchmarks.report

docs: $(STAMPS)/docs ## build the documentation in docs/_build/html
	@$(PY) -m sphinx -q -E -W --keep-going -b html docs docs/_build/html
	@echo "See docs/_build/html/index.html"

format: $(STAMPS)/lint ## format, and fix what ruff can fix
	@$(PY) -m ruff check --fix-only --quiet
	@$(PY) -m ruff format

clean: ## remove everything that make created, including .venv
	rm -rf $(VENV) .venv .venv-3.14 .fuzz build dist docs/_build htmlcov *.egg-info .coverage .coverage.* .hypothesis \
		.import_linter_cache .mypy_cache .pytest_cache .ruff_cache .tox
	find aemp_command aemp_gevent benchmarks docs examples fuzz soak tests -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
	find aemp_gevent -name '*.so' -exec rm -f {} +

# --- setting up -----------------------------------------------------------------

$(PY):
	@for candidate in $(or $(PYTHON),$(PYTHONS)); do \
		if "$$candidate" -c '$(PROBE)' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "No usable Python found: tried $(or $(PYTHON),$(PYTHONS))." >&2; \
		echo "aemp_gevent needs Python 3.10 or newer with its venv module (on Debian: apt install python3-venv)." >&2; \
		echo "If yours has another name: make PYTHON=/path/to/python" >&2; \
		exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$found" --version) ..."; \
	"$$found" -m venv --clear $(VENV)

# install EXTRAS, and the sets that these include: one retry, since networks hiccup
define install
	@echo "Installing aemp_gevent$(1) into $(VENV), which takes a minute the first time ..."
	@$(PIP) install --editable '.$(1)' || { \
		echo "That failed; trying once more in 5 s ..." >&2; sleep 5; $(PIP) install --editable '.$(1)'; }
	@mkdir -p $(STAMPS)
	@touch $@ $(addprefix $(STAMPS)/,$(2))
endef

$(STAMPS)/run: $(METADATA) | $(PY)
	$(call install,)

$(STAMPS)/test: $(METADATA) | $(PY)
	$(call install,[test],run)

# atheris has wheels for Linux and some Pythons only; elsewhere inputs are varied at random.
$(STAMPS)/fuzz: $(STAMPS)/test
	@$(PIP) install --only-binary atheris --editable '.[test,fuzz]' || echo "atheris cannot be installed here: doing without"
	@touch $@

# The type checkers read the tests too.
$(STAMPS)/lint: $(METADATA) | $(PY)
	$(call install,[test$(comma)lint],test run)

$(STAMPS)/bench: $(METADATA) | $(PY)
	$(call install,[bench],run)

$(STAMPS)/docs: $(METADATA) | $(PY)
	$(call install,[docs],run)

$(STAMPS)/dev: $(METADATA) | $(PY)
	$(call install,[dev],lint test run)

comma := ,
