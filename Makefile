# make venv      .venv with everything that pip can install
# make compare   the comparison with etcd, a few minutes
# make test      the tests, on every Python that is here, through tox
# make torture   real nodes under faults and load, every answer judged: SECONDS=, NODES=, VARIANT=, SEED=
# make mutants   the core with small changes, a sample of them, each of which its tests should find; half an hour
# make guard     v2.reactive beside etcd, a minute or two: fails where it has lost its lead, with much room for noise
# make deploy    every compose file, brought up and hurt; needs a Docker daemon
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

SECONDS ?= 300
NODES ?= 3
VARIANT ?= v2.reactive

.PHONY: venv compare test torture mutants guard deploy clean

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

torture: venv
	$(BIN)/python -m common_raft.testing.torture --seconds $(SECONDS) --nodes $(NODES) --variant $(VARIANT) $(if $(SEED),--seed $(SEED))

mutants: venv
	$(BIN)/python -m common_raft.tests.mutants --sample 150

guard: venv
	$(BIN)/python -m benchmarks guard --slack 60 --rounds 3 --seconds 1

deploy: venv
	$(BIN)/tox -e deploy

clean:
	rm -rf $(VENV) .tox .mypy_cache .ruff_cache .pytest_cache .hypothesis
