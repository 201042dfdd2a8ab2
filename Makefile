# `make serve` and `make test` are all a newcomer needs. TORCH names what to install as torch: on a machine with a GPU say
# `make serve TORCH=torch`. WORKERS are the processes that share the tests: two to a core, for they wait half of the time.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
DIGITS := .cache/digits
WORKERS ?= 4

.PHONY: serve test check unit test-clients compat compatibility-page bench soak clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[torch,dev,example,bench]"
	touch $@

$(DIGITS)/store/digits.mar: $(VENV)/installed $(wildcard docs/examples/digits/*.py docs/examples/digits/*.json)
	mkdir -p $(DIGITS)/store
	$(BIN)/python docs/examples/digits/train.py --output $(DIGITS)/model.pt
	$(BIN)/torch-model-archiver --force --model-name digits --version 1.0 --handler docs/examples/digits/digits_handler.py \
		--model-file docs/examples/digits/model.py --serialized-file $(DIGITS)/model.pt \
		--extra-files docs/examples/digits/index_to_name.json --export-path $(DIGITS)/store

serve: $(DIGITS)/store/digits.mar
	@echo 'Try: curl http://127.0.0.1:8080/predictions/digits -T docs/examples/digits/7.png'
	cd $(DIGITS) && exec $(abspath $(BIN))/modelserver --start --foreground --ncs --disable-token-auth --enable-model-api \
		--model-store store --models digits=digits.mar

test: $(VENV)/installed check unit

check:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy modelserver archiver tests benchmarks docs --exclude '^modelserver/ts/'
	$(BIN)/mypy --package ts

unit:
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# OPTIONS=--only triton: one set of clients. They are installed into environments of their own below .cache. KSERVE_WRAPPER=folder:
# with the program itself that KServe runs beside TorchServe, on ports 8080 and 8081.
test-clients: $(VENV)/installed
	PYTHONPATH=.:tests $(BIN)/python -m clients.environments $(OPTIONS)

# OPTIONS=--differences: is TorchServe really otherwise where we say so? OPTIONS=--refresh: record its answers anew.
compat: $(VENV)/installed
	PYTHONPATH=.:tests $(BIN)/python -m contract.compat $(OPTIONS)

compatibility-page: $(VENV)/installed
	PYTHONPATH=.:tests $(BIN)/python -m contract.page

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks

soak: $(VENV)/installed
	$(BIN)/python -m benchmarks.soak

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
