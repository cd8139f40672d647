# Two commands set everything up: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
UV      = .venv-uv/bin/uv
RUN     = .venv/bin
DEV     = .venv-dev/bin
export HF_HUB_OFFLINE := 1
export UV_NO_PROGRESS := 1

.PHONY: help demo serve test lint eval no-dataset lock clean test-live live-servers

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

demo: .venv/bin/refdesk ## ingest refdesk's own documentation and ask it three questions
	$(RUN)/refdesk demo

serve: .venv/bin/refdesk ## start the server on the default data folder
	$(RUN)/refdesk serve

test: .venv-dev/bin/refdesk lint ## lint, types, import contracts, then the tests
	$(DEV)/python -m pytest

lint: .venv-dev/ok ## ruff, mypy, import-linter
	$(DEV)/ruff check .
	$(DEV)/ruff format --check .
	$(DEV)/mypy
	$(DEV)/lint-imports

eval: $(if $(DATASET),,no-dataset) .venv-dev/bin/refdesk ## retrieval quality: make eval DATASET=../shared/data/scifact ARGS="--limit 50"
	$(DEV)/refdesk eval $(DATASET) $(ARGS)

no-dataset:
	@echo "make eval: of which data? DATASET=FOLDER in BEIR's layout, as ../shared/data/scifact, or a file of questions" >&2
	@echo "about your own documents; any other option goes into ARGS: make eval DATASET=mine.csv ARGS='-c docs'" >&2
	@exit 2

test-live: .venv-dev/ok ## start the gpu profile's real servers and test on them; says which could not be had
	$(DEV)/python -m pytest -o addopts="-rs -p no:cacheprovider --durations=25" tests/live

live-servers: .venv-dev/ok ## download and build what test-live starts, which it otherwise does itself
	$(DEV)/python -m tests.live.install

lock: .venv-uv/ok ## resolve the pinned versions anew
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml -o requirements/embedded.txt
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header -c requirements/embedded.txt --extra cluster pyproject.toml -o requirements/cluster.txt
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header -c requirements/cluster.txt --extra gpu pyproject.toml -o requirements/gpu.txt
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header -c requirements/cluster.txt --extra dev pyproject.toml -o requirements/dev.txt

clean: ## remove the environments and caches
	rm -rf .venv .venv-dev .venv-uv .mypy_cache .ruff_cache .cache demo

.venv-uv/ok: requirements/uv.txt
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/python -m pip install -q --require-hashes -r requirements/uv.txt
	@touch $@

.venv/ok: requirements/embedded.txt .venv-uv/ok
	$(UV) venv -q --clear --python $(PYTHON) .venv
	$(UV) pip sync -q --require-hashes --python .venv requirements/embedded.txt
	@touch $@

.venv-dev/ok: requirements/dev.txt .venv-uv/ok
	$(UV) venv -q --clear --python $(PYTHON) .venv-dev
	$(UV) pip sync -q --require-hashes --python .venv-dev requirements/dev.txt
	@touch $@

# The command of an environment, from any folder. Nothing is built: what it imports is this folder.
%/bin/refdesk: %/ok
	@echo '$(CURDIR)' > "$$($*/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/refdesk.pth"
	@printf '#!/bin/sh\nexec "%s" -P -m server "$$@"\n' '$(CURDIR)/$*/bin/python' > $@
	@chmod +x $@
