# make .venv   a virtual environment with everything the stages and the tests need
# make demo    the stages, in order, on the embedded demo set
# make test    the tests; make test-fast   those that take no minute: no stages, servers and browsers

PYTHON ?= python3
PY := .venv/bin/python

.PHONY: demo test test-fast lint bench
.DELETE_ON_ERROR:

.venv: .venv/installed

.venv/installed: requirements.txt requirements-test.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet "setuptools<81" wheel
	$(PY) -m pip install --quiet --no-build-isolation -r requirements-test.txt
	touch $@

test: .venv
	$(PY) -m pytest

test-fast: .venv
	$(PY) -m pytest -m "not slow"

lint: .venv
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

# Small enough for two CPU cores and ten minutes. The last epoch of stage 1 is where both arms start from.
DEMO := --dataset demo --in_res 128 --chan 32 --bs 8 --use_visdom false
START := lr-0.001-11.pth.tar
demo: .venv
	$(PY) stack-hg.py $(DEMO) --exp_id demo --is_train true --lr 0.001 --nEpochs 12 --overwrite true
	$(PY) collect-scale-distri.py $(DEMO) --exp_id demo --load_prefix_pose $(START) --overwrite true
	$(PY) collect-rotation-distri.py $(DEMO) --exp_id demo --load_prefix_pose $(START) --overwrite true
	$(PY) pretrain-s-r-agent.py $(DEMO) --exp_id demo --load_prefix_pose $(START) --nEpochs 4 --overwrite true
	$(PY) joint-train-pose-s-r-agent.py $(DEMO) --exp_id demo --load_prefix_pose $(START) \
	    --load_prefix_sr lr-0.00025-3.pth.tar --is_train true --lr 0.001 --nEpochs 18 --overwrite true
	mkdir -p checkpoints/demo-random && cp checkpoints/demo/$(START) checkpoints/demo-random/
	$(PY) stack-hg.py $(DEMO) --exp_id demo-random --load_prefix_pose $(START) --is_train true --lr 0.001 --nEpochs 18
	$(PY) -m utils.compare --arm random checkpoints/demo-random \
	    --arm adversarial checkpoints/demo/joint-lr-0.001-11 --from_epoch 12 --out checkpoints/demo-comparison

bench: .venv
	$(PY) tests/bench.py --dataset demo --bs 16 --in_res 128 --chan 64
