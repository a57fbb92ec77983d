# Everything sets itself up: the first run builds, later ones use .venv and .cache.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
RUN := PYTHONPATH=operator:hack $(BIN)/python
# Most tests wait (for a backoff, or to see that nothing happens), so that a process uses a third of
# a core. The quick tests compute, and each process collects all of them first (10 s under coverage).
TEST_PROCESSES ?= 6
QUICK_PROCESSES ?= 3

# Or each of the test processes, and each process that a test starts, would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test quick lint bench image containerfile krew docs clean parts promtool repro coverage faults faults-full attacks e2e e2e-day e2e-check paired cut release publish release-test explore explore-full start minor minors

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

.venv/.stamp: requirements/bootstrap.txt requirements/dev.txt .python-version
	@echo "==> Python packages into .venv (once, about half a minute)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12) and "Python 3.12 or newer is needed; this is " + sys.version.split()[0] + ". Name one: make PYTHON=python3.13")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt requirements/bootstrap.txt
	@touch $@

parts: .venv/.stamp ## build etcd, kube-apiserver, kubectl, helm, kstatus into .cache (once, about 5 minutes)
	@$(BIN)/python hack/controlplane/build.py

demo: parts ## the main job, for real: a control plane, a real S3, a bucket, keys that work
	@$(RUN) -m demo

lint: .venv/.stamp ## ruff, mypy strict, the layers, and drift of everything generated
	@hack/verify.sh

repro: parts ## what a bucket name that S3 refuses costs; PEER_CONTROLLER=... PEER_SIDECAR=... beside ours
	@$(RUN) -m repro $(REPRO)

promtool: .venv/.stamp ## build promtool for the tests of alerts and metrics (once, about 3 minutes)
	@$(BIN)/python hack/controlplane/build.py promtool

PYTEST = pytest --numprocesses $(TEST_PROCESSES) --dist loadscope --no-loadscope-reorder
QUICK := tests/unit tests/model
# API servers collect less often; the operator's processes and mock drivers are forked (hack/warm).
CHEAPER := GOGC=400 COSI_WARM_STARTS=1

# mypy uses one core for most of the time that lint takes, so the quick tests run beside it. The tests
# with real processes run alone: beside others, even niced ones, they miss deadlines.
test: parts promtool ## lint, unit, property and integration tests
	@$(BIN)/python -m compileall -q operator hack # once, not by each process; tests copy these folders
	@$(MAKE) --no-print-directory --jobs=2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) lint quick
	@$(CHEAPER) $(RUN) -m $(PYTEST) $(addprefix --ignore=,$(QUICK))

quick: TEST_PROCESSES := $(QUICK_PROCESSES)
quick: .venv/.stamp ## the unit and model tests, and whether their coverage is what docs/coverage.md says
	@rm -rf build/coverage/quick
	@export $(CHEAPER); $(call measure,quick,$(QUICK))
	@$(RUN) hack/coverage_figures.py check "unit and model tests" build/coverage/quick/coverage.json

coverage: parts promtool ## branch coverage by all tests, child processes too; text, and HTML in build/coverage/all/html
	@rm -rf build/coverage/all
	@$(call measure,all,tests)
	@$(BIN)/coverage report --data-file=build/coverage/all/data
	@$(BIN)/coverage html --quiet --data-file=build/coverage/all/data --directory=build/coverage/all/html
	@$(RUN) hack/coverage_figures.py $(if $(UPDATE),update,check) "all tests" build/coverage/all/coverage.json
	@echo "build/coverage/all/html/index.html"

# measure NAME,TESTS: run tests, child processes included, and write build/coverage/NAME/coverage.json
define measure
mkdir -p build/coverage/$(1) && \
COVERAGE_FILE=build/coverage/$(1)/data $(RUN) -m coverage run -m $(PYTEST) $(2) && \
$(BIN)/coverage combine --quiet --data-file=build/coverage/$(1)/data build/coverage/$(1) && \
$(BIN)/coverage json --quiet --data-file=build/coverage/$(1)/data -o build/coverage/$(1)/coverage.json
endef

faults: parts ## crashes, lost replies, bad API servers, two leaders; prints the table (part of `test`)
	@$(RUN) -m pytest tests/faults

faults-full: parts ## every fault at every side effect, 2000 failures at once, a soak of 3 minutes
	@COSI_FAULTS=full $(RUN) -m pytest tests/faults tests/integration/test_many_failures.py

# Everything else than the API server comes from .cache/bin, as for `make test`.
MINOR_TESTS ?= tests/integration tests/chart tests/faults
minor: .venv/.stamp ## integration, chart and fault tests on KUBERNETES=1.31; UPDATE=1 writes the row into docs/support-matrix.md
	@$(RUN) -m controlplane.minor build "$(KUBERNETES)"
	@export KUBEBUILDER_ASSETS="$(CURDIR)/.cache/bin/kubernetes-$(KUBERNETES)"; \
	$(BIN)/python hack/controlplane/build.py etcd kube-apiserver kubectl helm kstatus promtool && \
	{ $(CHEAPER) $(RUN) -m $(PYTEST) --junitxml=build/minors/$(KUBERNETES).xml $(MINOR_TESTS); code=$$?; } && \
	{ test -z "$(UPDATE)" || test $$code -gt 1 || $(RUN) -m controlplane.minor record "$(KUBERNETES)" build/minors/$(KUBERNETES).xml; } && \
	exit $$code

minors: ## `make minor` on every minor that has pins, with all rows of docs/support-matrix.md
	@failed=; for folder in hack/controlplane/minors/*/; do \
	$(MAKE) minor KUBERNETES=$$(basename $$folder) UPDATE=1 || failed="$$failed $$(basename $$folder)"; done; \
	test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

explore: .venv/.stamp ## every state that one move from outside leads to, in each scene (part of `test`)
	@PYTHONPATH=operator:hack:. $(BIN)/python -m tests.explore --moves 1 --amid 1

explore-full: .venv/.stamp ## the same with two moves from outside, one of them amid work (about an hour of CPU)
	@PYTHONPATH=operator:hack:. $(BIN)/python -m tests.explore --moves 2 --amid 1

attacks: parts ## hostile tenants, drivers and API servers; prints the table of attacks (part of `test`)
	@$(RUN) -m pytest tests -m attack

e2e-check: .venv/.stamp # before anything is built for it
	@$(RUN) -m node --check

# Outside of the sandbox: that it ends without a trace, however it ends. Inside: everything else.
E2E_TESTS ?= tests/e2e
e2e: e2e-check parts image ## the user's whole day and operations under load, in pods on a real node (root, Linux)
	@COSI_E2E=1 $(RUN) -m pytest -s tests/e2e/test_sandbox.py
	@$(BIN)/python hack/controlplane/build.py crane
	@COSI_E2E=$(if $(UPDATE),update,1) $(RUN) -m node $(BIN)/python -m pytest -s $(E2E_TESTS) --ignore=tests/e2e/test_sandbox.py

e2e-day: e2e-check parts image ## the part of `make e2e` for CI: the user's whole day in pods, 2 minutes
	@COSI_E2E=1 $(RUN) -m node $(BIN)/python -m pytest -s tests/e2e/test_day.py

image: .venv/.stamp ## the OCI image into build/image, without Docker or a registry
	@PYTHONPATH=hack $(BIN)/python -m image $(IMAGE)

containerfile: parts ## build the Containerfile on a base made here, test that image (root, Debian; 2 minutes)
	@PYTHONPATH=hack $(BIN)/python -m image.containerfile
	@COSI_IMAGE=build/containerfile $(RUN) -m pytest tests/image

krew: .venv/.stamp ## the krew plugin into build/krew; KREW="--uri https://..." says where the archive will be
	@PYTHONPATH=hack $(BIN)/python -m krew $(KREW)

cut: .venv/.stamp ## move changelog.d into CHANGELOG.md as VERSION and set that version; you commit
	@$(RUN) -m release cut --version "$(VERSION)"

RELEASE = --version "$(VERSION)" --registry "$(REGISTRY)" --key "$(KEY)"
release: .venv/.stamp ## build all files of VERSION from the last commit into dist; KEY=cosign.key signs; docs/release.md
	@COSI_IMAGE_PINNED=1 $(RUN) -m release build $(RELEASE)

publish: .venv/.stamp ## push dist to the registry and sign there: VERSION, KEY, perhaps REGISTRY
	@$(RUN) -m release publish $(RELEASE)

release-test: parts ## the whole release in a clean clone, published on loopback, verified, installed (root; 10 minutes)
	@COSI_RELEASE=1 $(RUN) -m pytest -s tests/release

docs: .venv/.stamp ## the documentation as a site, in build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

bench: parts ## measure speed, size and requests (ten minutes); PEER_CONTROLLER=... PEER_SIDECAR=... beside ours
	@$(RUN) -m bench $(BENCH)

paired: parts ## this commit, the bare limit and BASE=<commit> in turn (ten minutes); PAIRED="--rounds 3 --claims 400"
	@$(RUN) -m bench.paired $(BASE) $(PAIRED)

start: ## how long `cosi status` takes to its first line, and how many modules it loads
	@$(RUN) -m bench.start

clean: ## remove what was built here
	rm -rf .venv .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
