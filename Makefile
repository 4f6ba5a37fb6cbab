# Every target works on a fresh machine: it makes .venv first if need be.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test test-images lint house chaos fuzz audit check compose sbom clean

run: $(VENV)/.local  ## set up, start everything, make a picture, keep serving
	$(BIN)/vqd up --first "red apple"

test: $(VENV)/.test  ## the whole test suite, on a real Redis and a real Triton
	$(BIN)/python -m pytest -n 4 --no-loadscope-reorder

test-images: $(VENV)/.test  ## build the gateway and worker images and run them; not in CI. ARGS=--own-bases pulls bases
	$(BIN)/python -m pytest -rA tests/images $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

house:  ## how long, how tested, how entangled: each figure beside its bound. `make test` asks for them, too
	$(PYTHON) tests/house.py

chaos: $(VENV)/.test  ## minutes of random kills and stops under load; not in CI. ARGS="--minutes 10 --seed 1"
	PYTHONPATH=tests/integration $(BIN)/python tests/chaos.py $(ARGS)

fuzz: $(VENV)/.test  ## minutes of schemathesis against our OpenAPI document; not in CI. ARGS="--minutes 10 --seed 1"
	PYTHONPATH=tests/integration $(BIN)/python tests/fuzz.py $(ARGS)

# In an environment of its own, to change none of ours. --strict: a package that could not be looked up is a failure, or
# an index without advisories would look like a clean bill.
audit:  ## every version of constraints.txt against the known vulnerabilities. Needs pypi.org; not in CI. ARGS="-s osv"
	$(PYTHON) -m venv outputs/audit
	outputs/audit/bin/pip install -q pip-audit==2.10.1
	outputs/audit/bin/pip-audit --strict --disable-pip --no-deps -r constraints.txt $(ARGS)

check: lint test  ## what pre-commit and CI call

compose:  ## the service in containers, on this machine
	@version=$$(docker compose version --short 2> /dev/null || echo none); version=$${version#v}; \
	if ! printf '2.24\n%s\n' "$$version" | sort -CV || [ "$$version" = none ]; then \
	  echo "Docker Compose 2.24 or newer is needed, as the command 'docker compose'; here: $$version." >&2; exit 1; fi
	docker compose up --build --wait
	@echo "http://localhost:$${GATEWAY_PORT:-8080}; its key: docker compose exec gateway cat /run/secrets/vqd/keys"

sbom: $(VENV)/.local  ## what is installed in .venv, as CycloneDX, in outputs/sbom.cdx.json
	$(PYTHON) -m venv outputs/sbom-tool
	outputs/sbom-tool/bin/pip install -q cyclonedx-bom==7.5.0
	outputs/sbom-tool/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --of JSON -o outputs/sbom.cdx.json

clean:  ## everything that git ignores and we made, but not .venv
	rm -rf outputs build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	git clean -fdXq model_repository

$(VENV)/.local: pyproject.toml constraints.txt
	@echo "Installing vqd with Redis, Triton and torch into $(VENV): once, some minutes. 1.8 GB, or more with CUDA."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e '.[local]'
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt
	@echo "Installing vqd and what its tests need into $(VENV): once, some minutes. 2.7 GB, or more with CUDA."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e '.[test]'
	touch $@
