# make .venv   a virtual environment with everything the stages and the tests need
# make demo    all stages, in order, on the demo set, which is generated; docs/results.md has its numbers
# make demo-occlusion    the occlusion agent, from stage 1 to networks under masks, on the same set
# make experiment    the arms of an experiment, several seeds each, from one base, and their table; what is
#     finished is skipped (docs/experiments.md). Variables: EXP_ID, DATA, DATASET, SEEDS, ARMS, BASE_EPOCHS,
#     AGENT_EPOCHS, EPOCHS (of an arm), and FLAGS for all others of python -m utils.experiment, such as
#     FLAGS="--in_res 128 --chan 64" or FLAGS="--occlusion true" for the occlusion agent's arms
# make visdom  the server that draws runs while they train; its page's scripts come from npm once
# make bench   where the time goes: loading beside OpenCV's, each stage beside its networks' passes
# make test    all tests; make test-fast    without stages, servers and browsers; make lint    the style

PYTHON ?= python3
PY := .venv/bin/python

.PHONY: demo demo-occlusion experiment visdom test test-fast lint bench
.DELETE_ON_ERROR:

.venv: .venv/installed

.venv/installed: requirements.txt requirements-test.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet "setuptools<81" wheel
	$(PY) -m pip install --quiet --no-build-isolation -r requirements-test.txt
	touch $@

test: .venv
	$(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-fast: .venv
	$(PY) -m pytest -n auto --dist loadfile -m "not slow"

lint: .venv
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

demo: .venv
	$(PY) -m utils.demo

demo-occlusion: .venv
	$(PY) -m utils.demo_occlusion

EXP_ID ?= experiment

experiment: .venv
	$(PY) -m utils.experiment --exp_id $(EXP_ID) $(if $(DATA),--data_dir $(DATA)) $(if $(DATASET),--dataset $(DATASET)) \
		$(if $(SEEDS),--seeds $(SEEDS)) $(if $(ARMS),--arms $(ARMS)) $(if $(BASE_EPOCHS),--base_epochs $(BASE_EPOCHS)) \
		$(if $(AGENT_EPOCHS),--agent_epochs $(AGENT_EPOCHS)) $(if $(EPOCHS),--arm_epochs $(EPOCHS)) $(FLAGS)

visdom: .venv
	$(PY) -m utils.visdom_server

.venv/bench: requirements-bench.txt .venv/installed
	$(PY) -m pip install --quiet -r requirements-bench.txt
	touch $@

bench: .venv/bench
	$(PY) tests/bench_data.py
	$(PY) tests/bench.py --dataset demo --batches 16 --in_res 128 --chan 64
