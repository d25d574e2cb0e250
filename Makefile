# Everything on a fresh machine: `make search` installs and runs the built-in search, `make test` installs and tests.
VENV ?= .venv
PYTHON ?= python3
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: search test check clean

search: $(VENV)/installed
	$(VENV)/bin/nas search digits

test: $(VENV)/installed-dev
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal

check: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal

clean:
	rm -rf $(VENV)

# torch goes first: what comes after finds it installed and asks for no other build.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python {sys.version.split()[0]} is too old; with 3.11 or newer: make PYTHON=python3.11 ...")'
	@echo "installing into $(VENV) (a minute or two, or some GB where pip finds only torch with CUDA) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) torch
	@$(PIP) -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@$(PIP) -e '.[dev]'
	@touch $@
