# Both of these install what they need:  make run [PHOTOS=~/Pictures]   and   make test
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

# Without PHOTOS, `make run` indexes a few sample photographs in a separate library, so that they never appear in your
# searches. With PHOTOS, it uses your library.
DEMO := .demo
PHOTOS ?= $(DEMO)/photos
LIBRARY := $(if $(filter $(DEMO)/photos,$(PHOTOS)),POCKETCLIP_HOME=$(DEMO)/library)
POCKETCLIP := $(LIBRARY) $(BIN)/pocketclip

.PHONY: run test quick check bench screenshots clean

run: $(VENV)/light $(filter $(DEMO)/photos,$(PHOTOS))
	@printf '== Indexing %s\n' "$(PHOTOS)"
	@$(POCKETCLIP) index "$(PHOTOS)" || test $$? -eq 3  # 3: some files could not be read; the command has listed them
	@printf '\n== Tags\n'
	@$(POCKETCLIP) tag "$(PHOTOS)"
	@printf '\n== pocketclip search "a cat"\n'
	@$(POCKETCLIP) search "a cat" -t 3
	@printf '\n== pocketclip search "a red flower"\n'
	@$(POCKETCLIP) search "a red flower" -t 3
	@printf '\nNext:  source %s/activate && pocketclip index ~/Pictures && pocketclip search "two dogs on a beach"\n' "$(BIN)"

# One process per core, each with one thread, because there are many small tests.
test: $(VENV)/dev check
	$(PYTEST)

# Structure, wording, the library and the Python API, without windows or training. Run it before each commit.
quick: $(VENV)/dev
	$(BIN)/ruff check --quiet .
	$(PYTEST) --quiet -m 'not slow' tests/test_architecture.py tests/test_prose.py tests/app/library tests/mobileclip/test_*.py

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

bench: $(VENV)/dev
	$(BIN)/python -m tests.benchmarks
	$(BIN)/python -m tests.benchmarks.library
	$(BIN)/python -m tests.benchmarks.gallery
	$(BIN)/python -m tests.benchmarks.training
	$(BIN)/python -m tests.benchmarks.gradient_cache
	$(BIN)/python -m tests.benchmarks.reinforced
	$(BIN)/python -m tests.benchmarks.loader
	$(BIN)/python -m tests.benchmarks.trunk
	$(BIN)/python -m tests.benchmarks.evaluation
	$(BIN)/python -m tests.benchmarks.export

# Writes every screen of the gallery to build/screenshots and those of the README to app/ui/screenshots, without a display.
screenshots: $(VENV)/dev
	$(BIN)/python -m tests.app.ui.screenshots

# The light half: NumPy, Pillow, ONNX Runtime and the command line.
$(VENV)/light: pyproject.toml
	@echo "== Installing the command line into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --editable .
	@touch $@

$(VENV)/dev: pyproject.toml
	@echo "== Installing everything into $(VENV), PyTorch included: a few minutes the first time"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --editable '.[dev]'
	@touch $@ $(VENV)/light

# Real photographs from the scikit-image and scikit-learn packages, which aren't installed.
$(DEMO)/photos: tests/sample_photos.py | $(VENV)/light
	@echo "== Downloading 14 sample photographs to $@"
	@$(BIN)/python tests/sample_photos.py $@

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info
