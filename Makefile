# make venv      .venv with everything that pip can install
# make compare   the comparison with etcd, a few minutes
# make test      the tests, on every Python that is here, through tox
# make deploy    every compose file, brought up and hurt; needs a Docker daemon
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: venv compare test deploy clean

venv: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

compare: venv
	$(BIN)/python -m benchmarks compare

test: venv
	$(BIN)/tox

deploy: venv
	$(BIN)/tox -e deploy

clean:
	rm -rf $(VENV) .tox .mypy_cache .ruff_cache .pytest_cache .hypothesis
