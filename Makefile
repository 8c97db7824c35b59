# `make demo` shows Mekt at work, `make test` checks it; both do all the set-up themselves, in .venv beside this file.
# Works with GNU make from 3.81 on (macOS) and any POSIX shell.

PYTHON ?= python3
ARGS ?=
RUNS ?= 1000000
# Half of what tests do is to wait for processes; each worker takes up to 600 MB.
WORKERS ?= 2
VENV := .venv
PY := $(VENV)/bin/python
# Stamps: what is installed, and, while pip runs, that it has not come to its end.
READY := $(VENV)/.ready
READY_TO_TEST := $(VENV)/.ready-to-test
READY_TO_BENCH := $(VENV)/.ready-to-bench
UNFINISHED := $(VENV)/.unfinished
# The fuzzer has an environment of its own: it does without torch, and not every system has a build of it.
FUZZ_VENV := .venv-fuzz
READY_TO_FUZZ := $(FUZZ_VENV)/.ready

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check chaos rollout bench results weather flood endurance drivers day shift fuzz clean broker board

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' Makefile
	@echo
	@echo '  make demo ARGS="..."     passes options on; .venv/bin/mekt demo --help lists them'
	@echo '  make demo PYTHON=...     sets .venv up with another Python, 3.11 or later'

demo: $(READY) broker ## a whole federation on this machine: devices, coordinator, broker, wearable
	@$(VENV)/bin/mekt demo $(ARGS)

test: $(READY_TO_TEST) broker ## lint, format, types and tests
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist loadfile

check: test ## the same as test

chaos: $(READY) broker ## fifty-two kills of a federation's parts, and all must end as if nobody had; four minutes
	@$(VENV)/bin/mekt chaos --kills 52 --rounds 13 $(ARGS)

rollout: $(READY_TO_TEST) broker ## releases to wearables while parts are killed, a bad one, and back; three to five minutes
	@OMP_NUM_THREADS=1 $(PY) -m tests.proofs.rollout $(ARGS)

bench: $(READY_TO_BENCH) ## what a round takes by part, and inference on a wearable, as ratios
	@$(VENV)/bin/mekt bench speed $(ARGS)
	@$(VENV)/bin/mekt bench wearable

# Interrupted, it goes on where it was: runs that are done are kept in bench-results.
results: $(READY_TO_BENCH) ## all that docs/results.md records; takes many hours on two cores
	@$(VENV)/bin/mekt bench compare --rotations $(ARGS)
	@for command in bytes labels proxy steps single encodings mixed ablate poison privacy speed; do \
	  $(VENV)/bin/mekt bench $$command $(ARGS) || exit 1; \
	done
	@$(VENV)/bin/mekt bench secure
	@$(VENV)/bin/mekt bench sensing

weather: $(READY_TO_TEST) broker ## the network at its worst, as long as it takes: 32 kbit/s, lost packets; minutes
	OMP_NUM_THREADS=1 $(PY) -m pytest -s -m weather tests/test_weak_network.py

flood: $(READY_TO_TEST) broker ## rounds while malformed messages pour in; what reaches the coordinator, and its memory
	@OMP_NUM_THREADS=1 $(PY) -m tests.proofs.flood $(ARGS)

endurance: $(READY_TO_TEST) broker ## memory of coordinator and devices over 220 rounds; minutes
	@OMP_NUM_THREADS=1 $(PY) -m tests.proofs.endurance $(ARGS)

# qemu and Debian's kernel come into ~/.cache/mekt-drivers, nothing is installed; results and console are in out/drivers.
drivers: $(READY_TO_TEST) ## sensors through real kernel drivers, in a small virtual machine; minutes
	@OMP_NUM_THREADS=1 $(PY) -m tests.drivers.rig $(ARGS)

# qemu and Debian for 64-bit Arm come into ~/.cache/mekt-board, nothing is installed; console and figures are in out/board.
board: $(READY_TO_TEST) broker ## a wearable on an emulated 64-bit Arm board whose plug is pulled; minutes
	@OMP_NUM_THREADS=1 $(PY) -m tests.board.rig $(ARGS)

day: $(READY_TO_TEST) ## each sample of a simulated day of bad sensors accounted for; minutes
	@OMP_NUM_THREADS=1 $(PY) -m tests.proofs.day $(ARGS)

shift: $(READY_TO_TEST) ## errors of shifts in time that are found on UTD-MHAD; minutes
	@OMP_NUM_THREADS=1 $(PY) -m tests.proofs.shift $(ARGS)

# Its inputs are kept in fuzz-results, and a later run goes on from them. docs/proofs.md has what came of a long one.
fuzz: $(READY_TO_FUZZ) ## RUNS hostile inputs (1000000) against every decoder of what peers send
	@OMP_NUM_THREADS=1 $(FUZZ_VENV)/bin/python -m tests.hostile.fuzz --runs $(RUNS) $(ARGS)

profile: $(READY) ## what a wearable installs, in packages and megabytes, on each machine; fetches 260 MB
	@$(PY) requirements/profile.py

clean: ## remove .venv, .venv-fuzz and every cache; recordings and state folders stay
	rm -rf $(VENV) $(FUZZ_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip takes what it left half-written for whole when it was interrupted; a set-up that was is therefore made anew.
BEGIN := trap 'exit 1' INT TERM; touch $(UNFINISHED)
END := code=$$?; rm -f $(UNFINISHED); exit $$code

# So is one that was moved with its folder, or whose Python went away: its stamp holds the folder's path.
ifneq ($(shell [ -e $(UNFINISHED) ] || $(PY) -c 'print(open("$(READY)").read().strip())' 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'Mekt needs Python 3.11 or later; "$(PYTHON) --version" says:' "$$($(PYTHON) --version 2>&1 | tail -n 1)." \
	    'Install one and name it, such as: make demo PYTHON=python3.11' >&2; exit 1; }
	@if [ ! -e $(UNFINISHED) ] && $(PY) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then echo 'Bringing $(VENV) up to date.'; \
	  else echo 'Making $(VENV), a virtual environment for Mekt alone.' && $(PYTHON) -m venv --clear $(VENV); fi
	@echo 'Installing Mekt and its packages; with torch to download this takes some minutes.'
	@$(BEGIN); \
	$(PY) -m pip install --quiet -c constraints.txt -e ".[edge,coordinator,wearable]"; \
	$(END)
	@echo '$(CURDIR)' > $@

$(READY_TO_TEST): $(READY)
	@echo 'Installing what the tests need: pytest, hypothesis, mypy, ruff, cryptography.'
	@$(BEGIN); \
	$(PY) -m pip install --quiet -c constraints.txt -e ".[edge,coordinator,wearable,dev]"; \
	$(END)
	@touch $@

$(READY_TO_BENCH): $(READY)
	@echo 'Installing what pictures of comparisons need: matplotlib.'
	@$(BEGIN); \
	$(PY) -m pip install --quiet -c constraints.txt -e ".[edge,coordinator,wearable,bench]"; \
	$(END)
	@touch $@

$(READY_TO_FUZZ): pyproject.toml constraints.txt
	@echo 'Making $(FUZZ_VENV), with what the fuzzer needs: atheris, coverage.'
	@$(PYTHON) -m venv --clear $(FUZZ_VENV)
	@$(FUZZ_VENV)/bin/python -m pip install --quiet -c constraints.txt -e ".[fuzz]"
	@touch $@

# The demo and the tests start a broker of their own on a free port; the system's service is neither used nor needed.
HAS_BROKER := $(PY) -c 'from mekt.broker import available_kind; available_kind()' 2>/dev/null

broker: $(READY)
	@$(HAS_BROKER) && exit 0; \
	as_root=; [ "$$(id -u)" = 0 ] || as_root='sudo -n'; \
	if command -v brew >/dev/null; then \
	  echo 'Installing the MQTT broker mosquitto with brew.'; brew install --quiet mosquitto; \
	elif $$as_root true 2>/dev/null && command -v apt-get >/dev/null; then \
	  echo 'Installing the MQTT broker mosquitto with apt-get.'; \
	  { $$as_root apt-get update -qq && \
	    $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends mosquitto; } >&2; \
	elif $$as_root true 2>/dev/null && command -v dnf >/dev/null; then \
	  echo 'Installing the MQTT broker mosquitto with dnf.'; $$as_root dnf install -q -y mosquitto; \
	fi; \
	$(HAS_BROKER) && exit 0; \
	echo 'mosquitto could not be installed here; installing amqtt into $(VENV) instead: slower, and only MQTT 3.1.1.'; \
	echo 'Once mosquitto is installed, it is used.'; \
	$(BEGIN); \
	$(PY) -m pip install --quiet -c constraints.txt -e ".[broker]"; \
	$(END)
