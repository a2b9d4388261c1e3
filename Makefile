# `make demo` and `make test` need Python 3.11 or newer, make and the package index, and nothing else. All that is
# made lies in this folder: uv and the caches in .tools, the environment in .venv, further PostgreSQL majors in
# tests/matrix/node_modules.

UV_VERSION := 0.13.8

# Which Python to use: the first of these that is new enough, or the one of `make PYTHON=…`.
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11

UV := .tools/bin/uv
export UV_CACHE_DIR ?= $(CURDIR)/.tools/cache
export UV_PYTHON_DOWNLOADS := never
export UV_PROJECT_ENVIRONMENT := .venv
# Without compiled files every process that a test starts would compile all libraries again, which takes a second each.
unexport PYTHONDONTWRITEBYTECODE

UV_INSTALLED := .tools/.uv-$(UV_VERSION)
SYNCED := .venv/.synced
DEPLOY_SYNCED := .venv/.synced-deploy
LOWEST := .tools/lowest
MATRIX := tests/matrix
MATRIX_INSTALLED := $(MATRIX)/node_modules/.installed

.DEFAULT_GOAL := help

.PHONY: demo
demo: $(SYNCED) ## watch a leaking service on an embedded PostgreSQL (ONCE=1 ends after about 30 s)
	@.venv/bin/pgwatch-sessions demo $(if $(ONCE),--once)

# Two workers per core: half of the time a test waits for other processes. Each worker starts its own PostgreSQL servers.
PARALLEL := -n auto --dist worksteal

.PHONY: test
test: $(SYNCED) ## run the tests in parallel (ARGS='-k word -x' goes to pytest)
	@.venv/bin/pytest $(PARALLEL) $(ARGS)

.PHONY: test-fast
test-fast: $(SYNCED) ## run the tests that need no PostgreSQL server and start no program (takes 20 s)
	@.venv/bin/pytest -n logical --dist worksteal -m "not slow and not e2e and not image and not installed" $(ARGS)

.PHONY: test-matrix
test-matrix: $(SYNCED) $(MATRIX_INSTALLED) ## run the tests of the SQL on every PostgreSQL major (needs npm)
	@PGWATCH_TEST_MATRIX="$(CURDIR)/$(MATRIX)/node_modules" .venv/bin/pytest $(PARALLEL) -k pg1 $(ARGS)

# Without the samples, which need further libraries, and without what those old versions do wrong themselves: SQLAlchemy
# loses a connection whose query is cancelled, psycopg_pool one that is returned while a caller runs out of time.
.PHONY: test-pools-lowest
test-pools-lowest: $(LOWEST) ## run the tests of pgwatch_sessions.pools with the oldest libraries that applications may have
	@$(LOWEST)/bin/python -m pytest tests/pools/test_*.py -n logical -p no:cacheprovider \
	    -W ignore::pytest.PytestUnraisableExceptionWarning \
	    -k "not samples and not cancelled_query and not with_a_psycopg_pool" $(ARGS)

.PHONY: fuzz
fuzz: $(SYNCED) ## try 3,000 inputs of each kind that comes from outside, other ones each time (20 minutes)
	@HYPOTHESIS_PROFILE=many .venv/bin/pytest -n logical -m fuzz --timeout 5000 $(ARGS)

.PHONY: manifests
manifests: $(SYNCED) ## write what Prometheus Operator and Grafana read on Kubernetes, from alerts/ and grafana/
	@.venv/bin/python deploy/kubernetes/generate.py

.PHONY: docs
docs: $(SYNCED) ## write the generated parts of the documentation: commands, settings, metrics, log events, promises
	@.venv/bin/python docs/generate.py

.PHONY: e2e
e2e: $(SYNCED) ## run a leak from its first session to the alert and back, and every PromQL expression
	@.venv/bin/pytest -m e2e --capture=no $(ARGS)

.PHONY: faults
faults: $(SYNCED) ## make every fault of server, network and machine, and hold against it what the daemon says
	@.venv/bin/pytest -m faults tests/faults -n logical --dist worksteal $(ARGS)

.PHONY: soak
soak: $(SYNCED) ## poll as often as in a day while clients come and go, and fail if the daemon grows
	@.venv/bin/python -m tests.soak $(ARGS)

.PHONY: image
image: $(SYNCED) ## build the container image and test it (needs buildah, podman, debootstrap and root)
	@.venv/bin/pytest -m image --capture=no $(ARGS)

.PHONY: installed
installed: $(SYNCED) ## install the wheel in empty environments, and run a suite that leaks with its pytest plugin
	@.venv/bin/pytest -m installed $(ARGS)

.PHONY: deploy-check
deploy-check: $(DEPLOY_SYNCED) ## check everything in deploy/ and the Dockerfile
	@.venv/bin/pytest tests/deploy $(ARGS)

.PHONY: check
check: $(SYNCED) ## run the linters; check formats, types, the direction of imports and the lock file
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@.venv/bin/mypy deploy/kubernetes/generate.py deploy/image/collect.py $(wildcard deploy/compose/*.py)
	@.venv/bin/mypy docs/generate.py
	@.venv/bin/lint-imports --no-logo
	@$(UV) lock --check

.PHONY: format
format: $(SYNCED) ## format the code, and fix what the linter can fix
	@.venv/bin/ruff check --fix-only
	@.venv/bin/ruff format

.PHONY: coverage
coverage: $(SYNCED) ## run the tests and show which lines they miss
	@.venv/bin/coverage erase
	@.venv/bin/coverage run -m pytest $(PARALLEL) $(ARGS)
	@.venv/bin/coverage combine --quiet
	@.venv/bin/coverage report

.PHONY: scenarios
scenarios: $(SYNCED) ## simulate leaks and healthy services, and print how well they are told apart
	@.venv/bin/python -m tests.scenarios $(ARGS)

.PHONY: dashboards
dashboards: $(SYNCED) ## write the Grafana dashboards from their code
	@.venv/bin/python -m grafana.generate

.PHONY: screenshots
screenshots: $(SYNCED) ## take pictures of the page and of top in build/screenshots (needs Chromium)
	@.venv/bin/python -m tests.screenshots $(ARGS)

.PHONY: bench
bench: $(SYNCED) ## measure what polls, scrapes, rules and checkouts cost (ARGS=pools: only these)
	@.venv/bin/python -m tests.bench $(ARGS)

.PHONY: claims
claims: $(SYNCED) ## try what is claimed about connection leaks, and write docs/claims.md (five minutes)
	@PATH="$(CURDIR)/.tools/bin:$$PATH" .venv/bin/python -m tests.claims $(ARGS)

.PHONY: clean
clean: ## remove everything that make and the tools have written
	rm -rf .venv .tools $(MATRIX)/node_modules dist build htmlcov .coverage .coverage.* coverage.xml
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find pgwatch_sessions tests -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(SYNCED): pyproject.toml uv.lock $(UV_INSTALLED)
	@echo "installing what uv.lock names into .venv ..."
	@$(UV) sync --quiet --locked --all-extras --python .tools/bin/python
	@touch $@

$(DEPLOY_SYNCED): $(SYNCED)
	@echo "installing the linters of what is deployed into .venv ..."
	@$(UV) sync --quiet --locked --all-extras --group deploy
	@touch $@

# Some distributions leave out ensurepip; there a pip outside of the environment can fill it.
$(UV_INSTALLED):
	@for python in $(or $(PYTHON),$(PYTHONS)); do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; python=; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "error: none of these is a Python 3.11 or newer: $(or $(PYTHON),$(PYTHONS)); try make PYTHON=/path/to/python" >&2; \
	    exit 1; \
	fi; \
	echo "installing uv $(UV_VERSION) into .tools with $$("$$python" --version) ..."; \
	if "$$python" -m venv --clear .tools >/dev/null 2>&1; then \
	    set -- .tools/bin/python -m pip; \
	elif "$$python" -m venv --clear --without-pip .tools && "$$python" -m pip --version >/dev/null 2>&1; then \
	    set -- "$$python" -m pip --python .tools/bin/python; \
	else \
	    echo "error: $$python can make no virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; \
	    exit 1; \
	fi; \
	"$$@" --quiet --no-input --disable-pip-version-check install --no-cache-dir uv==$(UV_VERSION)
	@touch $@

$(LOWEST): tests/pools/lowest.txt $(UV_INSTALLED)
	@$(UV) venv --quiet --clear --python .tools/bin/python $@
	@$(UV) pip install --quiet --python $@/bin/python --requirements $<
	@touch $@

$(MATRIX_INSTALLED): $(MATRIX)/package.json $(MATRIX)/package-lock.json
	@command -v npm >/dev/null || { echo "error: npm is missing; on Debian and Ubuntu: apt install npm" >&2; exit 1; }
	@echo "installing the PostgreSQL majors into $(MATRIX)/node_modules ..."
	@cd $(MATRIX) && npm ci --no-audit --no-fund --loglevel=error --cache "$(CURDIR)/.tools/npm"
	@touch $@
