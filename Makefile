# Position Sync for Interactive Brokers. `make` alone lists what there is.
#
# Each target works as the first command on a machine that has Python 3.11 to 3.14, pip and venv,
# and make: what it needs is installed into .tools and .venv of this folder, nowhere else.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

UV_VERSION := 0.13.8
UV := .tools/bin/uv
UV_INSTALLED := .tools/.uv-$(UV_VERSION)
RUNNABLE := .venv/.runnable
SYNCED := .venv/.synced
TESTS_COMPILED := .venv/.tests-compiled
BENCH_SYNCED := .venv/.bench-synced
DOCS_SYNCED := .venv/.docs-synced
BIN := .venv/bin
# The package is used where it lies, by a dozen processes at once.
COMPILE := $(BIN)/python -m compileall -q ib_gateway_simulator position_sync_dagster

# What our programs and tests import is compiled by importing it: a third of all that is installed.
# $(1): what the tests import besides.
IMPORT = $(BIN)/python -W ignore -c 'import dagster._cli, dagster._daemon.cli, position_sync_dagster.demo, \
  position_sync_dagster.defs.drain, position_sync_dagster.defs.stream, position_sync_dagster.definitions, \
  position_sync_dagster.web.metrics, position_sync_dagster.web.served_figures, position_sync_dagster.webserver$(1)'
OF_TESTS := , apprise, exchange_calendars, hypothesis.stateful, ib_insync, mcp.server.fastmcp, QuantLib, \
  selenium.webdriver.chrome.webdriver

# Earlier locks had eventkit too, which shares its files with aeventkit: it takes them along.
OWN_FILES := --reinstall-package aeventkit

# What is installed from this folder: the package and the simulator, of which no index is asked.
OURS := --editable . --editable ./ib_gateway_simulator

export UV_PYTHON_DOWNLOADS := never
export UV_PROJECT_ENVIRONMENT := .venv
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH PYTHONDONTWRITEBYTECODE

# What `make test PART=` runs: who changes the core waits for the core, alone, without money.
BY_FACES := $(addprefix tests/integration/lake/,test_older_lake.py test_object_store.py \
  test_pairs_of_changes.py test_table_contract.py)
PART_core := tests/contract \
  $(addprefix tests/unit/,domain gateway lake sync) \
  $(addprefix tests/integration/,gateway lake sync/stream sync/test_drain.py) \
  $(addprefix --ignore=,$(BY_FACES)) -p tests.support.core_alone
PART_money := $(BY_FACES) $(addprefix tests/unit/,money processes terminal web) $(addprefix tests/integration/,cli money web)
PART_simulator := ib_gateway_simulator/tests

EXTRAS := alerts demo kubernetes mcp postgres
comma := ,
space := $(subst ,, )

# Their markers; tests/support/tiers.py says which tests have them, and why.
SECOND_TIER := variation or program or campaign

ENDS ?= lowest-direct highest
FOR ?=
MESSAGES ?= 1000000
UI_PORT ?=
CONTROL_PORT ?=
HOME_DIR ?=
PART ?=
SEED ?=
ARGS ?=
PYTHON ?=
PYTHONS ?=
VERSION ?=

FOR_USERS := demo dev install test bench
# $(1): targets; each with what is written behind it.
listed = for target in $(1); do \
  sed -n "s/^$$target:.*\#\# \(.*\)/\1/p" Makefile | { read -r text; printf '  make %-13s %s\n' "$$target" "$$text"; }; done

.PHONY: help
help: ## list the targets
	@echo 'Position Sync for Interactive Brokers'
	@echo
	@$(call listed,$(FOR_USERS))
	@echo
	@echo 'To work on it:'
	@echo
	@$(call listed,$(filter-out $(FOR_USERS),$(shell sed -n 's/^\([a-z-]*\):.*## .*/\1/p' Makefile)))
	@echo
	@echo '  demo takes FOR=60 (seconds, unattended; fails unless its figures are met),'
	@echo '  UI_PORT=3000, CONTROL_PORT=, HOME_DIR=.demo; dev takes UI_PORT=3000; test takes PART=core,'
	@echo '  money or simulator, and, as test-all, ARGS= for pytest; bench takes PART=queue and ARGS=--quick;'
	@echo '  chaos takes SEED=, which replays its kills; fuzz takes MESSAGES=1000000 and SEED=, which replays its scripts;'
	@echo '  release-check takes FOR=60 and PYTHONS="python3.11 python3.14"; bounds-check takes ENDS=highest and ARGS=.'

.PHONY: demo
demo: $(RUNNABLE) ## simulator, stream, queue and Dagster UI together, with a live status
	@exec $(BIN)/position-sync demo --end-with $$PPID $(if $(FOR),--for $(FOR)) \
	  $(if $(UI_PORT),--ui-port $(UI_PORT)) $(if $(CONTROL_PORT),--control-port $(CONTROL_PORT)) \
	  $(if $(HOME_DIR),--home '$(HOME_DIR)') $(ARGS)

.PHONY: dev
dev: $(RUNNABLE) ## Dagster on 127.0.0.1 against your own TWS or IB Gateway (see .env.example)
	@exec $(BIN)/position-sync dev --end-with $$PPID $(if $(UI_PORT),--ui-port $(UI_PORT)) $(ARGS)

.PHONY: tables
tables: $(RUNNABLE) ## docs/tables.md, the data dictionary, from the code
	@$(BIN)/python -m tests.support.data_dictionary > docs/tables.md

# Some tests wait while others compute: four processes fill two cores. Each imports and collects all.
PYTEST := $(BIN)/pytest -n 4

$(TESTS_COMPILED): $(SYNCED)
	@$(BIN)/python -m tests.support.compiled && touch $@

.PHONY: test
test: $(TESTS_COMPILED) ## every promise once, some 10 minutes on two cores (ARGS='-n 0': one test after the other)
	@$(PYTEST) --durations=10 -m 'not ($(SECOND_TIER))' $(if $(PART),$(or $(PART_$(PART)),$(error no part $(PART)))) $(ARGS)

.PHONY: test-all
test-all: $(TESTS_COMPILED) ## everything: more cases, more programs, campaigns, Postgres, an object store
	@$(PYTEST) --durations=10 $(ARGS)

.PHONY: test-rest
test-rest: $(TESTS_COMPILED) ## what test-all has beyond test
	@$(PYTEST) --durations=10 -m '$(SECOND_TIER)' $(ARGS)

.PHONY: chaos
chaos: $(SYNCED) ## random kills and stops of all that writes, of each program, and odd lists (an hour)
	@$(BIN)/python -m tests.chaos --kills 200 $(if $(SEED),--seed $(SEED)) $(ARGS)
	@TESTS=all $(BIN)/pytest -q tests/unit tests/contract tests/integration/lake tests/integration/sync tests/integration/cli/test_stopping.py
	@CHAOS_ROUNDS=10 $(BIN)/pytest -q -s tests/acceptance/test_starting_again.py tests/chaos/test_ticks.py
	@TESTS=all $(BIN)/pytest -q tests/acceptance/test_hosts.py
	@FUZZ_MESSAGES=50000 FUZZ_SEED=random $(BIN)/pytest -q -o timeout=0 tests/integration/sync/test_fuzz.py \
	  tests/integration/sync/stream/test_emptied_accounts.py

.PHONY: year
year: $(SYNCED) ## a quarter of a year of sessions through the whole program, by a moved clock (SEED=, ARGS='--until 2027-12-10')
	@$(BIN)/python -m tests.year $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: fuzz
fuzz: $(SYNCED) ## a gateway and statements that say anything: a million messages, over a night
	@FUZZ_MESSAGES=$(MESSAGES) FUZZ_SEED=$(or $(SEED),random) \
	  $(BIN)/pytest -q -s -o timeout=0 $(ARGS) tests/integration/sync/test_fuzz.py \
	  tests/integration/sync/test_fuzzed_lines.py tests/unit/money/past/test_fuzzed_statements.py

.PHONY: bench
bench: $(BENCH_SYNCED) ## tables of times beside other ways to do the same (minutes)
	@$(BIN)/python -m benchmarks $(if $(PART),--part $(PART)) $(ARGS)

.PHONY: screenshots
screenshots: $(SYNCED) ## take the pictures of the documents from a running demo (needs Chromium)
	@$(BIN)/python -m docs.screenshots

.PHONY: diagrams
diagrams: $(SYNCED) ## draw the diagrams of the documents, from docs/drawn_diagrams.py
	@$(BIN)/python -m docs.drawn_diagrams

.PHONY: recorded-day
recorded-day: $(SYNCED) ## record a day of the demo, which the site plays without a server (six minutes; needs Chromium)
	@$(BIN)/python -m docs.recorded_page

.PHONY: docs
docs: $(DOCS_SYNCED) ## the documents as a site, served at 127.0.0.1:8000
	@$(BIN)/mkdocs serve $(ARGS)

# With --quiet no warning would be counted, and none fail it.
.PHONY: docs-check
docs-check: $(DOCS_SYNCED) ## the same built strictly, into .tools/site: each link and anchor leads somewhere
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --clean $(ARGS)

# As somebody without a checkout gets it: nothing of this folder is used after the build.
.PHONY: release-check
release-check: $(UV_INSTALLED) ## sdist and wheel; the wheel, installed elsewhere, runs demo, doctor, library, component
	@.tools/bin/python -m tests.release $(patsubst %,--python '%',$(PYTHONS)) $(if $(FOR),--for $(FOR)) $(ARGS)

.PHONY: release
release: $(UV_INSTALLED) ## write VERSION=0.2.0, release-check, commit, tag, sdist and wheel in dist/
	@.tools/bin/python -m tests.publish '$(VERSION)'

.PHONY: wheel-check
wheel-check: $(UV_INSTALLED) ## the quick part of it: what is in the wheel, and whether it installs and starts
	@.tools/bin/python -m tests.release --quick $(ARGS)

# Others install us beside what they have: both ends of the bounds resolve, and pass the first tier and
# what plays the extras. What the tests need beside them may not lift the lowest end.
.PHONY: bounds-check
bounds-check: $(UV_INSTALLED) ## make test with the lowest and the newest versions that the bounds allow
	@$(OWN_INDEX); for end in $(ENDS); do \
	  echo "Resolving $$end"; \
	  python=".tools/$$end/bin/python"; \
	  together=; [ "$$end" = highest ] || together=--no-deps; \
	  $(UV) pip compile --quiet $$own --resolution "$$end" $$together --annotation-style line \
	    --python .tools/bin/python $(addprefix --extra ,$(EXTRAS)) --no-emit-package ib-gateway-simulator \
	    pyproject.toml | grep -F '(pyproject.toml)' >".tools/$$end.txt" && \
	  $(UV) venv --quiet --clear --python .tools/bin/python ".tools/$$end" && \
	  $(UV) pip install --quiet $$own --python "$$python" --constraints ".tools/$$end.txt" \
	    --editable ./ib_gateway_simulator --editable '.[$(subst $(space),$(comma),$(EXTRAS))]' --group dev && \
	  "$$python" -m pytest -n 4 -W default -m 'extra or not ($(SECOND_TIER))' $(ARGS) || exit; \
	done

.PHONY: check
check: $(SYNCED) ## lint, format, types, import rules, lock file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy examples/library/*.py examples/rules/*.py
	$(BIN)/lint-imports
	$(UV) lock --check

.PHONY: install
install: $(RUNNABLE) ## install what demo and dev need (700 MB)

.PHONY: setup
setup: $(SYNCED) ## install the tools and the locked dependencies, those of the tests too (1.6 GB)

# The candidates are asked, not trusted: a launcher may exist for a Python that does not.
$(UV_INSTALLED):
	@found=; novenv=; others=; \
	for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  if ! "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' \
	    >/dev/null 2>&1; then \
	    version=$$("$$python" --version 2>/dev/null) && others="$$others $$python is $$version."; \
	    continue; \
	  fi; \
	  if "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then found=$$python; break; fi; \
	  novenv=$${novenv:-$$python}; \
	done; \
	if [ -z "$$found" ]; then \
	  if [ -n "$$novenv" ]; then \
	    echo "$$novenv has no venv and pip. Install them (on Debian and Ubuntu: apt install python3-venv)." >&2; \
	  else \
	    echo "No Python 3.11 to 3.14 was found.$$others Install one, or name it: make PYTHON=/path/to/python3 ..." >&2; \
	  fi; \
	  exit 1; \
	fi; \
	echo "Installing uv $(UV_VERSION) into .tools ($$("$$found" --version))"; \
	"$$found" -m venv --clear .tools && \
	.tools/bin/python -m pip install --quiet --disable-pip-version-check 'uv==$(UV_VERSION)'
	@touch $@

# uv does not read pip's configuration: this names to it the index that pip has of its own, if any.
OWN_INDEX = own=$$(.tools/bin/python -m pip config list 2>/dev/null | \
  sed -n "s/.*[.]\(index-url\|no-index\)='\(.*\)'/--default-index=\2/p" | tail -n 1)

# Where pip has an index of its own, uv installs the same locked and hashed versions from there, and
# where uv cannot, pip does.
# $(1): what of the lock file; $(2): how uv installs it; $(3): how pip does.
define install
python=.venv/bin/python; "$$python" -c '' >/dev/null 2>&1 || python=.tools/bin/python; \
$(OWN_INDEX); \
if [ -n "$$own" ] || \
  ! $(UV) sync --quiet --frozen $(1) $(2) $(OWN_FILES) --python "$$python"; then \
  $(UV) export --quiet --frozen $(1) --no-emit-workspace --output-file .tools/requirements.txt >/dev/null && \
  "$$python" -m venv .venv && \
  if ! $(UV) pip install --quiet --no-deps --require-hashes --python $(BIN)/python $$own -r .tools/requirements.txt; then \
    echo 'uv could not install them: trying pip' >&2; \
    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes $(3) -r .tools/requirements.txt; \
  fi && \
  { $(UV) pip install --quiet --python $(BIN)/python $$own --no-deps $(OURS) || \
    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(OURS); }; \
fi && $(COMPILE)
endef

# The programs, the simulator and the money page; what the tests have beside them stays.
$(RUNNABLE): $(UV_INSTALLED) pyproject.toml ib_gateway_simulator/pyproject.toml uv.lock
	@echo 'Installing what the programs need into .venv (700 MB there; the first time takes a minute)'; \
	$(call install,--no-default-groups --extra demo --extra alerts,--inexact,--no-compile) && $(call IMPORT) && touch $@

$(SYNCED): $(UV_INSTALLED) pyproject.toml ib_gateway_simulator/pyproject.toml uv.lock
	@echo 'Installing the locked dependencies, those of the tests too, into .venv (1.6 GB there)'; \
	rm -f $(BENCH_SYNCED) $(DOCS_SYNCED); \
	$(call install,,--no-compile,) && $(call IMPORT,$(OF_TESTS)) && touch $(RUNNABLE) $@

# Beside what the tests need, and lost when that is installed anew.
$(BENCH_SYNCED) $(DOCS_SYNCED): .venv/.%-synced: $(SYNCED)
	@echo 'Installing what $* needs into .venv'; \
	$(UV) export --quiet --frozen --only-group $* --output-file .tools/$*.txt >/dev/null && \
	.tools/bin/python -m pip --python $(BIN)/python install --quiet --disable-pip-version-check \
	  --no-deps --require-hashes -r .tools/$*.txt && \
	touch $@
