# make listen    set up and listen: to the default microphone, or to the demo where there is none
# make test      set up what the quick tests need (no torch), check and test
# make test-all  the same, then training, the benchmarks and all that is slow
# make test-home how many recordings in ../shared/data/home get a right name: seldom, docs/testing.md
# make test-llm  a real language model beside the stream: builds llama.cpp, docs/testing.md
# make soak      the long tests
# make bench     the speed of all parts, one table: benchmarks/bench.py --help
# make train     set up what training and the benchmarks need
# make docs      set up what the pages need and build them into site/
# ARGS="..."     further options of `streamtwl listen` (default: --labels everyday), pytest or bench

PYTHON ?= python3
BIN := .venv/bin

.PHONY: listen test test-all test-home test-llm soak bench train docs
.NOTPARALLEL:

listen: ARGS ?= --labels everyday
listen: .venv/.cpu
	@tools/system_packages.sh libportaudio2 || true
	@$(BIN)/streamtwl models pull mn04 --optional $(filter --offline,$(ARGS)) >/dev/null || true
	@if $(BIN)/streamtwl devices >/dev/null 2>&1; then \
		$(BIN)/streamtwl listen $(ARGS); \
	else \
		echo "No microphone here, so this is the demo (20 seconds). Plug one in and run this again to hear it"; \
		$(BIN)/streamtwl listen --demo $(ARGS); \
	fi

test: .venv/.test
	@tools/system_packages.sh libportaudio2 || true
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n logical --maxprocesses 4 --dist worksteal -m "not slow and not soak and not home and not llm" $(ARGS)

test-all: test .venv/.test-all
	@tools/system_packages.sh libportaudio2 pulseaudio pulseaudio-utils libasound2-plugins faketime strace ffmpeg buildah mmdebstrap chromium mosquitto prometheus || true
	$(BIN)/mypy
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile -m "slow and not alone and not soak and not llm" $(ARGS)
	$(BIN)/pytest -m "alone and not soak and not llm" $(ARGS)

test-home: .venv/.test
	$(BIN)/pytest -m home $(ARGS)

test-llm: export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF
test-llm: .venv/.test-llm
	$(BIN)/pytest -m llm $(ARGS)

soak: .venv/.test
	@tools/system_packages.sh libportaudio2 pulseaudio pulseaudio-utils libasound2-plugins faketime || true
	$(BIN)/pytest -m soak $(ARGS)

bench: .venv/.test
	@tools/system_packages.sh libportaudio2 pulseaudio pulseaudio-utils libasound2-plugins || true
	@$(BIN)/streamtwl models pull mn04 --optional >/dev/null || true
	$(BIN)/python benchmarks/bench.py $(ARGS)

train: .venv/.train
	@echo "Ready: see \`$(BIN)/streamtwl train --help\`"

docs: .venv/.docs
	$(BIN)/mkdocs build --strict $(ARGS)

.venv/.%: pyproject.toml constraints.txt | .venv  # the extras `cpu` and %
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,$*]'
	@touch $@

.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "streamtwl needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || tools/system_packages.sh python3-venv
	$(PYTHON) -m venv .venv
