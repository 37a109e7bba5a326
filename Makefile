# Words that people and CI share. Everything runs inside .venv; `make install` makes it.
PYTHON ?= python3
BIN := .venv/bin
CT ?= ../shared/ct
JOBS ?= 2
KILLS ?= 20

.PHONY: install demo test check docs real bench soak clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,docs]'
	touch $@

demo: install
	$(BIN)/hounsfield demo --out out/demo

test: .venv/installed-test
	$(BIN)/python -m pytest -n $(JOBS)

soak: .venv/installed-test
	KILLS=$(KILLS) $(BIN)/python -m pytest tests/test_kill.py
	$(BIN)/python tests/soak/flat.py

check: .venv/installed-test
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/ruff format --check src tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/installed-test
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "Site: site/index.html (with search: $(BIN)/python -m http.server --directory site)"

real: install
	PATH="$(CURDIR)/$(BIN):$$PATH" examples/real_ct/run.sh $(CT)

bench: .venv/installed-test
	for program in benchmarks/*.py; do $(BIN)/python $$program || exit 1; done

clean:
	rm -rf out build dist site .mypy_cache .ruff_cache .pytest_cache
