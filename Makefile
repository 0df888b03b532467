# make demo, make test, make docs, make check: each alone, on a fresh machine with Python 3.11 or newer and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test docs check readme results clean

demo: .venv/installed
	$(BIN)/ftp-cl demo --out demo

test: .venv/tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

# The site, into build/docs; the tutorials run, and a warning is an error.
docs: .venv/tests docs/requirements.txt
	$(BIN)/python -m pip install --quiet -r docs/requirements.txt
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m sphinx -b html -q -W --keep-going docs build/docs

# Style and types.
check: .venv/tests
	$(BIN)/python -m pip install --quiet "ruff>=0.17,<0.18" "mypy>=2.4,<2.5"
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# The comparison of methods (docs/protocol.md): runs what results/ lacks, about half a minute each, and writes the tables.
results: .venv/tests
	$(BIN)/ftp-cl compare && $(BIN)/ftp-cl compare --plan recommended && $(BIN)/ftp-cl compare --plan defaults
	$(BIN)/ftp-cl compare --plan few_labels && $(BIN)/ftp-cl compare --plan ablations && $(BIN)/ftp-cl compare --plan rates
	$(BIN)/ftp-cl compare --plan text && $(BIN)/ftp-cl compare --plan dense

# The generated lines and tables in README.md, docs/ and results/findings.md, from a finished demo and from results/.
readme: demo
	$(BIN)/python tools/update_readme.py --demo demo --results

# What the demo needs and no more, in the versions that the tests run with.
.venv/installed: requirements.txt pyproject.toml setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint requirements.txt --editable ".[fast]"
	touch $@

.venv/tests: .venv/installed
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

clean:
	rm -rf .venv build *.egg-info
