# Two commands matter: `make run` and `make test`.  Both set up whatever they need on a fresh machine that has
# Python 3.11 or newer, and a C compiler if the fast engine is to be fast.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
COMPILED := build/compiled
SOURCES := $(shell find ferrox -name '*.py') setup.py pyproject.toml

.PHONY: run test faults soak test-pure test-compiled install-check check setup compiled format clean help

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

run: compiled  ## set up, then run the whole service, kill its matcher in the middle, and prove that nothing was lost
	PYTHONPATH=$(COMPILED) $(BIN)/ferrox rehearse

test: test-compiled test-pure  ## set up, then pass every test on the compiled and on the pure build

setup: $(VENV)/ready  ## make the virtual environment, with the checkout installed in it, pure

compiled: $(COMPILED)/ready  ## build the compiled copy of the package beside the checkout

# The checkout stays pure: a compiled module beside its newer source would win the import without a word.
$(VENV)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Ferrox needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  setuptools wheel mypy librt mypy-extensions
	FERROX_PURE=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  --no-build-isolation -e '.[dev]'
	@touch $@

# The scripts are installed, so they find the compiled copy first when PYTHONPATH names it; `python -m` would put the
# checkout before it.
$(COMPILED)/ready: $(VENV)/ready $(SOURCES)
	@rm -rf $(COMPILED)
	$(BIN)/python setup.py --quiet build --build-temp build/temp --build-lib $(COMPILED)
	@PYTHONPATH=$(COMPILED) $(BIN)/ferrox --version
	@touch $@

test-pure: $(VENV)/ready  ## every test but the exhaustive ones on the interpreted build, with branch coverage
	@rm -f .coverage*
	FERROX_EXPECT=pure $(BIN)/coverage run $(BIN)/pytest -n $(JOBS) -m "not exhaustive and not faults"
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

test-compiled: $(COMPILED)/ready  ## every test that can meet the fast engine, on the compiled build
	FERROX_EXPECT=compiled PYTHONPATH=$(COMPILED) $(BIN)/pytest -n $(JOBS) -m "not reference"

faults: $(COMPILED)/ready  ## the fault suite of journal and service, the share that `make test` runs too
	PYTHONPATH=$(COMPILED) $(BIN)/pytest -n $(JOBS) tests/faults

soak: $(COMPILED)/ready  ## the fault suite with the counts of a release: 10,000 kills, 100,000 losses of power
	FERROX_FAULTS=soak PYTHONPATH=$(COMPILED) $(BIN)/pytest -n $(JOBS) --timeout 7200 tests/faults

install-check:  ## install into empty environments, as a user would, without a C compiler and with one
	@rm -rf build/install build/lib.* build/temp.* build/bdist.* && mkdir -p build/install
	$(PYTHON) -m venv build/install/pure
	CC=/bin/false build/install/pure/bin/python -m pip install --quiet --disable-pip-version-check .
	cd build/install && pure/bin/ferrox --version | grep interpreted
	cd build/install && pure/bin/ferrox demo --commands 20000 > /dev/null
	@rm -rf build/lib.* build/temp.* build/bdist.*
	$(PYTHON) -m venv build/install/compiled
	FERROX_COMPILE=1 build/install/compiled/bin/python -m pip install --quiet --disable-pip-version-check .
	cd build/install && compiled/bin/ferrox --version | grep COMPILED

check: $(VENV)/ready  ## format, lint and types, as CI asks for
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/ready  ## format the code and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove what was built and measured, not the virtual environment
	rm -rf build dist *.egg-info .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
