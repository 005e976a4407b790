# make fit   a fresh machine, nothing but a package index: environment, LightGCN on the embedded sample, a top 10
# make image  the service with the model that `recflow package` put into the store last, as an image: recflow:latest
# make image-test  builds such an image of the embedded sample and runs it, as root on Debian, without a Docker engine
# make test  the whole test suite;  make check  lint, formatting, types and import contracts

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
BACKEND ?= docker

.PHONY: fit test check image image-test benchmark clean

fit: $(VENV)/.installed
	$(BIN)/recflow fit --plugin lightgcn
	$(BIN)/recflow recommend --user 42 -k 10 --why

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 -q

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# With BACKEND=podman or buildah, BUILDAH_FORMAT=docker keeps the health check, which the OCI's format does not know.
image: export BUILDAH_FORMAT ?= docker
image: $(VENV)/.installed
	@$(BIN)/bentoml models get recflow:latest >/dev/null 2>&1 || { echo "make image needs a model: recflow package"; exit 2; }
	@command -v $(BACKEND) >/dev/null || { echo "make image needs $(BACKEND), or another: make image BACKEND=podman"; exit 2; }
	$(BIN)/bentoml build
	$(BIN)/bentoml containerize recflow:latest --backend $(BACKEND) --image-tag recflow:latest

image-test: $(VENV)/.installed
	$(BIN)/python scripts/try_image.py

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(VENV)/.installed $@

# Ours beside a peer: make benchmark PEER=folder with run.py and requirements.txt; see benchmarks/README.md
benchmark: $(VENV)/.installed
	test -n "$(PEER)" || { echo "make benchmark needs PEER=<folder with run.py and requirements.txt>"; exit 2; }
	test -d .peer || { $(PYTHON) -m venv .peer && .peer/bin/pip install --quiet -r $(PEER)/requirements.txt; }
	$(BIN)/python benchmarks/epoch.py --data ml-1m --peer .peer/bin/python $(PEER)/run.py
	$(BIN)/python benchmarks/epoch.py --data ml-100k --peer .peer/bin/python $(PEER)/run.py

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
