# make demo   installs once, then trains on real digits through a virtual bench over VISA
# make test   lint and the whole suite
PY := .venv/bin/python

.PHONY: demo test lint bench clean
demo: .venv/ready
	$(PY) -m hil train experiments/demo.toml

test: .venv/ready lint
	$(PY) -m pytest tests -n 2 --dist loadfile

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: .venv/ready
	$(PY) benchmarks/first_light.py --quick
	$(PY) benchmarks/link.py --quick
	$(PY) benchmarks/overhead.py --quick

.venv/ready: pyproject.toml constraints.txt
	python3 -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	.venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	touch $@

clean:
	rm -rf .venv build *.egg-info
