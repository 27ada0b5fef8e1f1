# Two commands do everything: `make app` and `make test`. Each builds its own virtual environment first, once.

PYTHON ?= python3
VENV   ?= .venv
PORT   ?= 8501

BIN   := $(VENV)/bin
STAMP := $(VENV)/.stamp

.PHONY: help app test lint env browser clean
.DEFAULT_GOAL := help

help:
	@echo 'make app    the dashboard on http://127.0.0.1:$(PORT) (PORT=... for another one)'
	@echo 'make test   ruff, mypy, import contracts and all tests'
	@echo 'make lint   the same without the tests'
	@echo 'make env    only the virtual environment $(VENV) (PYTHON=... for another interpreter, 3.11 or newer)'
	@echo 'make clean  takes away the environment and all caches'

# The one environment, made anew whenever what is asked of it changes.
env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'Trueline needs Python 3.11 or newer, and "$(PYTHON)" is not; say `make PYTHON=python3.12 ...`.' >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  echo 'Making $(VENV) ...'; $(PYTHON) -m venv $(VENV) || { \
	    echo 'No virtual environment came of it; on Debian or Ubuntu: apt install python3-venv.' >&2; exit 1; }; }
	@echo 'Installing into $(VENV) (some minutes the first time) ...'
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

app: $(STAMP)
	$(BIN)/streamlit run app/main.py --server.address 127.0.0.1 --server.port $(PORT)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --cache-dir $(VENV)/.import_linter_cache

# One test opens the app in Debian's chromium. Where it cannot be had, that test is skipped and says so.
browser:
	@command -v chromium >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo 'Installing chromium for the browser test ...'; \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	      apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1; \
	  fi; \
	  command -v chromium >/dev/null || echo 'No chromium here: the browser test will be skipped.'; }

test: lint browser
	@# one thread a worker: two workers of two threads each on two cores only wait for each other
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m 'not browser'
	@# by itself: a browser, a server and a sampler are three already, and beside others a page took minutes
	$(BIN)/python -m pytest -q -m browser

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find core app scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +
