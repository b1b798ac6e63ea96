# `make run` and `make test` do all the set-up on a fresh machine.
PYTHON ?= python3
DEVICE ?= cpu
BIN := .venv/bin

.PHONY: run tutor test soak bench check docs clean

run: .venv/installed
	$(BIN)/zephyr run

# a real tutor: SmolLM2-135M-Instruct, fine-tuned and aligned on public data
tutor: .venv/installed
	$(BIN)/zephyr run smollm2-quick
	@echo "Talk to it: $(BIN)/zephyr serve --recipe smollm2-quick, or $(BIN)/zephyr chat M2 --recipe smollm2-quick"

test: .venv/installed-test
	$(BIN)/python -m pytest -n auto --maxprocesses=4 --dist worksteal

# twenty kills at random moments, twenty identical ends, a hundred students, all of the seed's rows
soak: .venv/installed-test
	$(BIN)/python -m pytest -m soak -s

check: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check
	$(BIN)/python -m bench.page --check

docs: .venv/installed-test
	$(BIN)/python docs/generate.py
	$(BIN)/python -m bench.page

# needs the public files at ZEPHYR_REAL_DATA and an idle machine
bench: .venv/installed-test
	$(BIN)/python -m bench.shared.environments --device $(DEVICE)
	$(BIN)/python -m bench.training --device $(DEVICE)
	test $(DEVICE) = cuda || $(BIN)/python -m bench.evaluation
	test $(DEVICE) = cuda || $(BIN)/python -m bench.serving

clean:
	rm -rf .venv .bench

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	touch $@
