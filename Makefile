# Everything happens in .venv; each stamp in it says that a step is done and still fresh.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
SANITIZED := build/sanitize
TRACED := build/trace
CYTHON := $(wildcard src/*.pyx src/spaceblock/*.pxd src/spaceblock/quic/native/*.pyx src/spaceblock/quic/native/*.pxd)

# How many processes share the tests, and the QUIC engines that the end-to-end ones run on (nothing: all that there are).
WORKERS ?= 2
ENGINES ?=

.PHONY: build demo test lint bench sanitize coverage clean

build: .venv/built

demo: .venv/built
	$(BIN)/python examples/demo.py

test: .venv/built .venv/lint .venv/package
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --engines=$(ENGINES)

lint: .venv/built .venv/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint $(CYTHON)
	PATH="$(CURDIR)/$(BIN):$$PATH" double-quote-cython-strings $(CYTHON)
	$(BIN)/python -m mypy
	$(BIN)/python -m mypy.stubtest spaceblock._fastblock spaceblock._fastdeframer spaceblock._fastlists spaceblock._fastfiles
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pyright --verifytypes spaceblock --ignoreexternal

bench: .venv/built .venv/test
	$(BIN)/python -m pytest bench -o python_files='bench_*.py' --benchmark-only --benchmark-group-by=group \
		--benchmark-sort=name --benchmark-columns=min,median,rounds --benchmark-disable-gc -p no:cacheprovider

# The tests of what is compiled, with the checks compiled in; the interpreter is a stock one, so the runtime is loaded before it.
# Little is kept of what was freed: tests that ask how much memory is held would count it.
sanitize: .venv/built .venv/instrument
	SPACEBLOCK_SANITIZE=1 $(BIN)/python setup.py -q build --build-base $(SANITIZED) --build-lib $(SANITIZED)/lib
	ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=8 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
		PYTHONPATH=$(SANITIZED)/lib LD_PRELOAD=$$(cc -print-file-name=libasan.so) \
		$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -p no:cacheprovider \
		tests/test_core.py tests/test_deframer.py tests/test_lists.py tests/test_files_at_once.py \
		tests/native tests/test_fuzz_corpus.py

# What is left behind when programs end that have tried every input of every fuzzing target: nothing, of ours. A dozen targets
# share a process, since each allocation costs a walk up the stack, and starting up makes more of them than the inputs do.
.PHONY: leaks

leaks: .venv/built .venv/instrument
	SPACEBLOCK_SANITIZE=1 $(BIN)/python setup.py -q build --build-base $(SANITIZED) --build-lib $(SANITIZED)/lib
	$(BIN)/python -m fuzz list | ASAN_OPTIONS=detect_leaks=1:fast_unwind_on_malloc=0:malloc_context_size=12 \
		LSAN_OPTIONS=suppressions=fuzz/leaks.supp:print_suppressions=0 PYTHONMALLOC=malloc \
		PYTHONPATH=$(SANITIZED)/lib xargs -P $(WORKERS) -n 12 \
		env LD_PRELOAD="$$(cc -print-file-name=libasan.so)" $(BIN)/python -m fuzz corpus

# Inputs made up for every decoder (docs/fuzzing.md): FUZZ_SECONDS in all. With FUZZ_CHECKED=1 on modules that have the
# sanitizers' checks compiled in, and count where they go, so that what reaches new places is found.
FUZZ_SECONDS ?= 60
FUZZ_CHECKED ?= 0
FUZZ_OPTIONS ?=
FUZZED := build/fuzz

.PHONY: fuzz

fuzz: .venv/built .venv/instrument
ifeq ($(FUZZ_CHECKED),1)
	SPACEBLOCK_SANITIZE=1 CFLAGS=-fsanitize-coverage=trace-pc \
		$(BIN)/python setup.py -q build --build-base $(FUZZED) --build-lib $(FUZZED)/lib
	cc -O2 -shared -fPIC -o $(FUZZED)/counters.so fuzz/counters.c
	ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=8 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
		FUZZ_COUNTERS=$(FUZZED)/counters.so PYTHONPATH=$(FUZZED)/lib \
		LD_PRELOAD="$$(cc -print-file-name=libasan.so) $(CURDIR)/$(FUZZED)/counters.so" \
		$(BIN)/python -m fuzz run --seconds $(FUZZ_SECONDS) $(FUZZ_OPTIONS)
else
	$(BIN)/python -m fuzz run --seconds $(FUZZ_SECONDS) $(FUZZ_OPTIONS)
endif

# Transfers on a simulated network in virtual time (docs/simulation.md): SEEDS of them from FIRST on, JOBS at a time.
SEEDS ?= 10000
FIRST ?= 0
JOBS ?= 2

.PHONY: simulate
simulate: .venv/built .venv/test
	$(BIN)/python -m simulation --seeds $(SEEDS) --first $(FIRST) --jobs $(JOBS)

# What is promised of transfers that break, put to the test at length (docs/reliability.md): make prove PROOF=kill, with the
# proof's options in PROOF_OPTIONS. "make prove" alone names the proofs.
PROOF ?= --help
PROOF_OPTIONS ?=

.PHONY: prove
prove: .venv/built .venv/test
	$(BIN)/python -m proofs $(PROOF) $(PROOF_OPTIONS)

# Our transport with those of others (docs/interop.md); their programs are fetched and built on the first run.
.PHONY: interop
interop: .venv/built .venv/test
	$(BIN)/python interop/run.py

# Lines of Python and of Cython together. What is compiled is counted by gcov, so that it keeps its pace.
coverage: .venv/built .venv/instrument
	mkdir -p $(TRACED); find $(TRACED) \( -name '*.py' -o -name '*.gcda' \) -delete; rm -f .coverage*
	SPACEBLOCK_TRACE=1 $(BIN)/python setup.py -q build --build-base $(TRACED) --build-lib $(TRACED)/lib
	-$(COVERED) run -m pytest --timeout=600 -n $(WORKERS) --dist worksteal --engines=$(ENGINES)
	$(COVERED) combine -q
	PYTHONPATH=tools $(BIN)/python tools/compiled_lines.py $(TRACED)
	$(COVERED) combine -q --append
	$(COVERED) report --fail-under=95

COVERED := PYTHONPATH="$(CURDIR)/$(TRACED)/lib:$(CURDIR)/tools" $(BIN)/python -m coverage

# The guide, into docs/_build/html; every warning is an error, and so is a link inside that leads nowhere. "make links" asks
# for the pages of others that it names.
.PHONY: docs links
docs: .venv/built .venv/docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

links: .venv/built .venv/docs
	$(BIN)/python -m sphinx -q -W --keep-going -b linkcheck docs docs/_build/links

# The wheel for this Python into dist/: built from the archive, its libraries put into it, and the tests run against it in an
# empty environment without a compiler. WHEEL_TESTS is what pytest gets: WHEEL_TESTS="tests/test_core.py -x".
WHEEL_TESTS ?=
.PHONY: wheel
wheel: .venv/made .venv/package
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/try_wheel.py $(if $(WHEEL_TESTS),-- $(WHEEL_TESTS))

clean:
	rm -rf .venv build dist docs/_build htmlcov .coverage .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -rf src/*.egg-info src/spaceblock/*.so src/spaceblock/quic/native/*.so
	find . -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

.venv/made:
	@command -v $(PYTHON) >/dev/null && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is missing; install it (Debian: apt-get install python3) or name it with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "Python's venv module is missing; install it (Debian: apt-get install python3-venv)." >&2; exit 1; }
	@test "$$SPACEBLOCK_NO_EXTENSION" = 1 || command -v cc >/dev/null || \
		{ echo "A C compiler is missing; install one (Debian: apt-get install gcc libc6-dev)." >&2; exit 1; }
	@test "$$SPACEBLOCK_NO_EXTENSION" = 1 || \
		$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || \
		{ echo "Python's C headers are missing; install them (Debian: apt-get install python3-dev)." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade 'pip>=25.1'
	@touch $@

.venv/built: .venv/made pyproject.toml setup.py $(CYTHON) $(wildcard src/*.h)
	$(PIP) -e .
	@touch $@

.venv/test .venv/lint .venv/package .venv/docs .venv/instrument: .venv/%: .venv/made pyproject.toml
	$(PIP) --group $*
	@touch $@
