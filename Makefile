# Two commands do all the set-up:  make run [PHOTOS=~/Pictures]   and   make test
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PHOTOS ?= .photos
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: run test check bench clean

run: $(VENV)/light $(if $(filter .photos,$(PHOTOS)),.photos)
	@$(BIN)/pocketclip index "$(PHOTOS)" || test $$? -eq 3  # 3: some files could not be read, which it has said
	@printf '\n== Tags\n'
	@$(BIN)/pocketclip tag "$(PHOTOS)"
	@printf '\n== pocketclip search "a cat"\n'
	@$(BIN)/pocketclip search "a cat" -t 3
	@printf '\n== pocketclip search "a red flower"\n'
	@$(BIN)/pocketclip search "a red flower" -t 3

test: $(VENV)/dev check
	$(BIN)/python -m pytest

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/dev
	$(BIN)/python -m tests.benchmarks

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
