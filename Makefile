# One verb per target; `make` alone lists them. Every target sets up .venv by itself when it must.
PYTHON ?= python3
GPU ?=
RAY ?=
BIN := .venv/bin
PINS := $(if $(GPU),requirements-gpu.txt,requirements.txt) $(if $(RAY),requirements-ray.txt)
READY := .venv/.ready$(if $(GPU),-gpu)$(if $(RAY),-ray)
UPGRADE ?=
N ?= 3
SIZES ?=
SHELL := /bin/bash
UV := 0.13.9
# an environment names its own folder in every script: one that has been moved is recreated
MOVED := $(filter-out $(CURDIR),$(shell cat .venv/.ready 2>/dev/null))
ifneq ($(MOVED),)
$(shell rm -f .venv/.ready*)
endif

.DEFAULT_GOAL := help
.PHONY: help setup repro repro-cnn repro-ctc test check lint seeds cost smoke bench bench-quick ui search search-cnn search-ctc dashboard promote rollback serve pins clean

help:  ## list the verbs
	@sed -n 's/^\([a-z-]*\):.*##/  make \1\t/p' Makefile | expand -t 19

setup: $(READY)  ## create .venv with everything the project needs; GPU=1 brings CUDA, RAY=1 brings Ray

# the two networks side by side, a thread each; -s because DVC locks what it looks at on its way up the chain
repro: $(READY)  ## the whole experiment: draw, train, fine-tune, export, test, compare (dvc repro)
	$(BIN)/dvc repro generate
	@$(MAKE) --no-print-directory -j 2 repro-cnn repro-ctc
	$(BIN)/dvc repro

repro-cnn repro-ctc: repro-%: $(READY)
	@set -o pipefail; $(BIN)/dvc repro -s train@$* finetune@$* export@$* evaluate@$* 2>&1 | cat

test: $(READY)  ## all tests, the whole chain, tiny, and training on JAX among them
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

check: $(READY)  ## what is said of the committed files (README, reports, dvc.lock), for those who commit them
	$(BIN)/python -m pytest -q checks

lint: $(READY)  ## ruff, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

seeds: $(READY)  ## the networks with N seeds through DVC experiments: mean, spread, each run
	$(BIN)/captchalab seeds --count $(N)

cost: $(READY)  ## what accuracy costs, as curves; SIZES="30000 100000" also trains with smaller train splits
	$(BIN)/captchalab cost $(patsubst %,--train-images %,$(SIZES))

smoke: $(READY)  ## the whole chain on the captchas of params.yaml, tiny, in a temporary copy
	$(BIN)/captchalab smoke

bench: $(READY)  ## speed and cost, each against its baseline, to benchmarks/results; after make repro, on quiet cores
	$(BIN)/python benchmarks/everything.py

bench-quick: $(READY)  ## the same at small sizes in under three minutes; writes nothing
	$(BIN)/python benchmarks/everything.py --quick

ui: $(READY)  ## MLflow's pages on 127.0.0.1:5000: the runs, and the trials of searches
	$(BIN)/captchalab ui

search: $(READY)  ## search better parameters with Optuna, both networks' side by side; Ctrl-C ends it, again goes on
	@$(MAKE) --no-print-directory -j 2 search-cnn search-ctc

search-cnn: $(READY)  ## the CNN's alone
	$(BIN)/captchalab search run --kind cnn

search-ctc: $(READY)  ## CTC's alone
	$(BIN)/captchalab search run --kind ctc

dashboard: $(READY)  ## Optuna's pages on 127.0.0.1:8080: the studies
	$(BIN)/captchalab dashboard

promote: $(READY)  ## the workspace's better network becomes champion, if it beats the present one
	$(BIN)/captchalab promote

rollback: $(READY)  ## back to the champion before
	$(BIN)/captchalab rollback

serve: $(READY)  ## the champion behind MLflow's scoring server on 127.0.0.1:5001
	$(BIN)/captchalab serve

pins: $(READY)  ## resolve pyproject.toml into the requirements files; UPGRADE=1 takes newer versions too
	$(BIN)/uv pip compile -q $(if $(UPGRADE),--upgrade) --universal --generate-hashes --python-version 3.11 --extra dev \
		--custom-compile-command "make pins" pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile -q --universal --generate-hashes --python-version 3.11 --extra dev --extra gpu \
		--custom-compile-command "make pins" -c requirements.txt pyproject.toml -o requirements-gpu.txt
	$(BIN)/uv pip compile -q --universal --generate-hashes --python-version 3.11 --extra dev --extra ray \
		--custom-compile-command "make pins" -c requirements.txt pyproject.toml -o requirements-ray.txt

clean:  ## remove .venv, checkpoints and caches; data, models and runs stay
	rm -rf .venv .checkpoints .mypy_cache .pytest_cache .ruff_cache

# bytecode at once: every stage imports TensorFlow, and containers often keep Python from writing what it compiles
$(READY): requirements.txt requirements-gpu.txt requirements-ray.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else \
		f"captchalab needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is {v[0]}.{v[1]}: make setup PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian: python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv $(if $(MOVED),--clear) .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV)
	VIRTUAL_ENV=.venv $(BIN)/uv pip install -q --compile-bytecode --require-hashes $(addprefix -r ,$(PINS))
	VIRTUAL_ENV=.venv $(BIN)/uv pip install -q --no-deps --no-build-isolation -e .
	@pwd | tee $(if $(GPU)$(RAY),.venv/.ready) > $@
