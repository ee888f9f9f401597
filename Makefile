# Two commands do all on a fresh machine: `make demo` and `make test`. While you change something: `make quick`.
PYTHON ?= python3
PATIENTS ?= ../shared/training
VENV := .venv
BIN := $(VENV)/bin
# as many tests at once as there are cores, at most four: each may start an engine that takes all cores and a gigabyte
WORKERS ?= logical
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal $(ARGS)

.PHONY: demo test quick lint torture bench bench-speed bench-engine bench-scene bench-ssh bench-cohort pretrain pretrain-refiner pretrain-start screenshots voices clean

demo: $(VENV)/demo.stamp  ## segment a real MRI from a few annotated slices; CASE=folder takes another case, ENGINE=ssh://user@host a GPU there
	$(BIN)/python Testing/demo.py $(if $(CASE),--case "$(CASE)") $(if $(ENGINE),--engine "$(ENGINE)") --output demo-output

test: lint  ## everything that CI runs; WORKERS=1 for one test at a time, ARGS for pytest
	$(PYTEST)

quick: lint  ## what a change most likely breaks: lint, types, and the tests that are not slow
	$(PYTEST) -m "not slow"

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

torture: $(VENV)/test.stamp  ## attack a real worker and all that is read, for half an hour or more; OUT, ARGS="--seed N --only NAME": see docs/reliability.md
	PYTHONPATH=Testing $(BIN)/python -m torture --out "$(or $(OUT),.)" $(ARGS)

bench: $(VENV)/bench.stamp  ## accuracy against Grow from seeds and other peers; CASES, PROTOCOLS, METHODS, BUDGET, OUT, ARGS: see docs/accuracy.md
	$(BIN)/python Testing/benchmark/accuracy.py $(if $(CASES),--cases $(CASES)) $(if $(PROTOCOLS),--protocols $(PROTOCOLS)) \
	  $(if $(METHODS),--methods $(METHODS)) $(if $(BUDGET),--budget $(BUDGET)) $(if $(OUT),--out "$(OUT)") $(ARGS)

bench-speed: $(VENV)/bench.stamp  ## answers to corrections, stopping and memory at 7 and 79 M voxels beside Grow from seeds; ARGS: see docs/benchmark.md
	$(BIN)/python Testing/benchmark/speed.py --json "$(or $(OUT),.)/bench-speed.json" $(ARGS)

bench-engine: $(VENV)/bench.stamp $(VENV)/test.stamp  ## training speed against MONAI, prediction memory, weight map and prior times
	$(BIN)/python Testing/benchmark/engine.py

bench-ssh: $(VENV)/test.stamp  ## bytes and seconds of a session over ssh, at full speed and over a slow line; ARGS
	$(BIN)/python Testing/benchmark/ssh.py $(ARGS)

bench-cohort: $(VENV)/test.stamp  ## one network from few slices of many patients, beside all slices, on other patients; PATIENTS, OUT, ARGS: see docs/cohorts.md
	$(BIN)/python Testing/benchmark/cohort.py --patients "$(PATIENTS)" --out "$(or $(OUT),.)/bench-cohort.json" $(ARGS)

bench-scene: $(VENV)/test.stamp  ## what the panel does on Slicer's main thread, on a large volume
	$(BIN)/python Testing/benchmark/scene.py

pretrain: pretrain-refiner pretrain-start  ## train what ships into refiner.pt and start.pt here; see pretraining/README.md

pretrain-refiner: $(VENV)/test.stamp  ## on patients too where PATIENTS has them
	$(BIN)/python pretraining/train.py --seed 1 --out refiner.pt $(if $(wildcard $(PATIENTS)),--patients "$(PATIENTS)") $(ARGS)

pretrain-start: $(VENV)/test.stamp  ## the same, for what the network begins with
	$(BIN)/python pretraining/start.py --seed 1 --out start.pt $(if $(wildcard $(PATIENTS)),--patients "$(PATIENTS)") $(ARGS)

screenshots: $(VENV)/test.stamp  ## the README's tutorial pictures
	$(BIN)/python Testing/make_screenshots.py

voices: $(VENV)/bench.stamp  ## the picture of the voices in docs/method.md; JOB=folder of a finished run, TRUTH=file
	$(BIN)/python Testing/make_voices_figure.py "$(JOB)" $(if $(TRUTH),--truth "$(TRUTH)")

$(VENV)/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))" || (echo "Python 3.11 to 3.13 is needed; set PYTHON=..." && exit 1)
	$(PYTHON) -m venv $(VENV)

$(VENV)/%.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) demo-output bench-output build *.egg-info SparseSegSlicer/*.egg-info
