# Everything runs in an own virtual environment; all it takes is python3 with pip, and this file.

PYTHON ?= python3
VENV ?= .venv
# A further requirement, such as DJANGO="django~=6.1.0".
DJANGO ?=
# Options for what is run: make test ARGS="-k lanes", make soak ARGS="--minutes 2", make demo ARGS=--once, make bench ARGS=--peers
ARGS ?=

RUN = $(VENV)/bin/python
comma := ,
# The driver for MariaDB is compiled on the spot, for which its headers must be there.
TESTS = test-fuzz-postgres$(shell command -v mariadb_config >/dev/null && echo -mysql)

.DELETE_ON_ERROR:
.PHONY: test soak demo bench lint types docs migrations clean

test: $(VENV)/.with-$(TESTS)
	$(RUN) -m tests $(ARGS)

soak: $(VENV)/.with-test-postgres
	$(RUN) -m tests.faults.soak $(ARGS)

demo: $(VENV)/.with-demo
	$(RUN) example_project/demo.py $(ARGS)

bench: $(VENV)/.with-bench
	$(RUN) -m benchmarks $(ARGS)

lint: $(VENV)/.with-lint
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(VENV)/.with-lint
	$(RUN) -m mypy

docs: $(VENV)/.with-docs
	$(RUN) -m sphinx -W --keep-going --quiet -b html docs docs/_build/html

migrations: $(VENV)/.with-$(TESTS)
	DJANGO_SETTINGS_MODULE=tests.settings $(RUN) -m django makemigrations djwebhooks djwebhooks_inbox --check --dry-run

clean:
	rm -rf .venv* build dist docs/_build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The stamp .with-test-postgres says that .[test,postgres] is installed as setup.cfg asks for it now.
$(VENV)/.with-%: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --editable ".[$(subst -,$(comma),$*)]" $(DJANGO)
	@touch $@
