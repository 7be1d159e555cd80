# make demo   installs once, then trains on real digits through a virtual bench over VISA
# make test   lint and types beside the whole suite
# make dist   writes a wheel and an sdist to dist/
# make reference   writes the pages and schemas that are made from the code
# make docs   builds the site of the pages of docs/ into site/
PYTHON ?= python3
PY := .venv/bin/python
unexport PYTHONDONTWRITEBYTECODE  # or each process that a test starts would compile everything anew

.PHONY: demo test suite lint bench reference docs dist clean
demo: .venv/ready
	$(PY) -m hil.demo

test: .venv/docs
	@$(MAKE) --no-print-directory --jobs 2 lint suite

suite: .venv/docs
	$(PY) -m pytest tests --forks 6  # tests that wait leave the cores to others

lint: .venv/ready
	nice -n 19 .venv/bin/ruff check .
	nice -n 19 .venv/bin/ruff format --check .
	nice -n 19 .venv/bin/mypy

bench: .venv/ready
	$(PY) benchmarks/first_light.py --quick
	$(PY) benchmarks/link.py --quick
	$(PY) benchmarks/overhead.py --quick

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = "%d.%d" % sys.version_info[:2]; sys.exit(None if sys.version_info >= (3, 11) else \
		"hil needs Python 3.11 or newer, and $(PYTHON) is " + v + "; name another one: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	.venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	touch $@

reference: .venv/ready
	$(PY) docs/reference/generate.py

docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo site/index.html

.venv/docs: .venv/ready
	.venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

dist: .venv/ready
	rm -rf dist
	$(PY) -m build --no-isolation  # with the setuptools of constraints.txt; the wheel is built from the sdist

clean:
	rm -rf .venv build site dist *.egg-info
