# make demo, make test: each alone, on a fresh machine with Python 3.11 and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check readme results clean

demo: .venv/installed
	$(BIN)/ftp-cl demo --out demo

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Style and types; needs what the test does not.
check: .venv/installed
	$(BIN)/python -m pip install --quiet "ruff>=0.17,<0.18" "mypy>=2.4,<2.5"
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# The comparison of methods (docs/protocol.md): runs what results/ lacks, about half a minute each, and writes the tables.
results: .venv/installed
	$(BIN)/ftp-cl compare && $(BIN)/ftp-cl compare --plan recommended && $(BIN)/ftp-cl compare --plan defaults
	$(BIN)/ftp-cl compare --plan few_labels && $(BIN)/ftp-cl compare --plan ablations && $(BIN)/ftp-cl compare --plan rates
	$(BIN)/ftp-cl compare --plan text

# The table and the figure in README.md, from a finished demo.
readme: demo
	$(BIN)/python tools/update_readme.py --demo demo --results

.venv/installed: requirements.txt pyproject.toml setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@

clean:
	rm -rf .venv build *.egg-info
