# make listen   set up and listen: to the default microphone, or to the demo where there is none
# make test     set up what the tests need, check and test
# make soak     the long tests
# make train    set up what training and the benchmarks need
# make docs     set up what the pages need and build them into site/
# ARGS="..."    further options of `streamtwl listen` (default: --labels everyday) or pytest

PYTHON ?= python3
BIN := .venv/bin

.PHONY: listen test soak train docs

listen: ARGS ?= --labels everyday
listen: .venv/.listen
	@tools/system_packages.sh libportaudio2 || true
	@if $(BIN)/streamtwl devices >/dev/null 2>&1; then \
		$(BIN)/streamtwl listen $(ARGS); \
	else \
		echo "No microphone here, so this is the demo (20 seconds). Plug one in and run this again to hear it"; \
		$(BIN)/streamtwl listen --demo $(ARGS); \
	fi

test: .venv/.test
	@tools/system_packages.sh libportaudio2 pulseaudio pulseaudio-utils libasound2-plugins faketime strace ffmpeg || true
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -m "not soak" $(ARGS)

soak: .venv/.test
	@tools/system_packages.sh libportaudio2 pulseaudio pulseaudio-utils libasound2-plugins faketime || true
	$(BIN)/pytest -m soak $(ARGS)

train: .venv/.test
	@echo "Ready: see \`$(BIN)/streamtwl train --help\`"

docs: .venv/.docs
	$(BIN)/mkdocs build --strict $(ARGS)

.venv/.listen: pyproject.toml constraints.txt | .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu]'
	@touch $@

.venv/.test: pyproject.toml constraints.txt | .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,train,test]'
	@touch $@ .venv/.listen

.venv/.docs: pyproject.toml constraints.txt | .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "streamtwl needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || tools/system_packages.sh python3-venv
	$(PYTHON) -m venv .venv
