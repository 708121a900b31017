# Two commands do all the set-up:  make run [PHOTOS=~/Pictures]   and   make test
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PHOTOS ?= .photos
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: run test check bench screenshots clean

run: $(VENV)/light $(if $(filter .photos,$(PHOTOS)),.photos)
	@$(BIN)/pocketclip index "$(PHOTOS)" || test $$? -eq 3  # 3: some files could not be read, which it has said
	@printf '\n== Tags\n'
	@$(BIN)/pocketclip tag "$(PHOTOS)"
	@printf '\n== pocketclip search "a cat"\n'
	@$(BIN)/pocketclip search "a cat" -t 3
	@printf '\n== pocketclip search "a red flower"\n'
	@$(BIN)/pocketclip search "a red flower" -t 3

# One process a core, each on one thread: tests are many and small.
test: $(VENV)/dev check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/dev
	$(BIN)/python -m tests.benchmarks
	$(BIN)/python -m tests.benchmarks.library
	$(BIN)/python -m tests.benchmarks.gallery
	$(BIN)/python -m tests.benchmarks.training
	$(BIN)/python -m tests.benchmarks.gradient_cache
	$(BIN)/python -m tests.benchmarks.reinforced
	$(BIN)/python -m tests.benchmarks.loader
	$(BIN)/python -m tests.benchmarks.evaluation
	$(BIN)/python -m tests.benchmarks.export

# Every screen of the gallery into build/screenshots, and those of the README beside the code; needs no display.
screenshots: $(VENV)/dev
	$(BIN)/python -m tests.app.ui.screenshots

# The light half: NumPy, Pillow, ONNX Runtime and the command line.
$(VENV)/light: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --editable .
	@touch $@

$(VENV)/dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --editable '.[dev]'
	@touch $@ $(VENV)/light

# Real photographs out of the scikit-image and scikit-learn packages, which are not installed for it.
.photos: tests/sample_photos.py
	@$(BIN)/python tests/sample_photos.py $@

clean:
	rm -rf $(VENV) .photos build dist *.egg-info
