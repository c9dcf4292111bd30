# Each target sets itself up: .venv is updated when pyproject.toml changes.

PYTHON ?= python3
BIN := .venv/bin
WORKDIR ?= runs/laser_photos

.PHONY: setup demo test test-all lint docs tutorials bench bench-gpu report study faults

setup: .venv/ready

.venv/ready: pyproject.toml requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed (make PYTHON=...), got " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

# The evaluation reuses programs that the training compiled.
demo: export JAX_COMPILATION_CACHE_DIR ?= .venv/xla
demo: setup
	$(BIN)/python main.py --config=configs/laser_photos.py --workdir=$(WORKDIR)
	$(BIN)/python main.py --config=configs/laser_photos.py --workdir=$(WORKDIR) --mode=evaluate

# pytest-xdist hangs where it restarts a worker that crashed: the run fails at once instead.
PYTEST = $(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart=0

test: setup
	$(PYTEST) -m "not slow"

# And the slow ones: long experiments and runs that are killed.
test-all: test
	$(PYTEST) -m slow

# With PyTorch beside: .venv/bin/pip install torch
bench: setup
	$(BIN)/python -m benchmarks.sparse
	$(BIN)/python -m benchmarks.step
	$(BIN)/python -m benchmarks.step --num_hiddens=128 --batch_size=128 --rounds=6
	$(BIN)/python -m benchmarks.pipeline

# On an accelerator, in under eight minutes. SIZES=small takes seconds on any machine.
bench-gpu: setup
	$(BIN)/python -m benchmarks.gpu --sizes=$(or $(SIZES),full)

# All experiments at a size of minutes, into report/index.html.
report: setup
	$(BIN)/python -m experiments.report --size=small --workdir=report

# The same at full size: hours; a study that was stopped goes on.
study: setup
	$(BIN)/python -m experiments.report --size=full --workdir=runs/full

# Injects faults into runs: half an hour. As root, or in `unshare -rm make faults`.
faults: setup
	mkdir -p runs && $(BIN)/python -m pytest tests/faults/full.py -o faulthandler_timeout=0 --basetemp=runs/faults

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# The site, into site/. Needs no network once it is installed.
docs: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Runs the tutorials and writes their pages in docs/tutorials: ten minutes.
tutorials: setup
	$(BIN)/python -m docs.render
