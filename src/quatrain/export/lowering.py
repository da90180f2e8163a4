"""Tracing, and what both backends ask of ExecuTorch's lowering."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig

from quatrain.backbone.model import Backbone

# The graphs are right by construction; the verifier would only re-interpret them.
EDGE_CONFIG = EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True)
EXECUTORCH_CONFIG = ExecutorchBackendConfig()


def trace(backbone: Backbone) -> torch.export.ExportedProgram:
    """The backbone's graph for 1 to max_seq_len tokens at any position."""
    config = backbone.config
    if backbone.tok_embeddings is None:
        example = torch.zeros(1, 3, config.dim)
    else:
        example = torch.zeros(1, 3, dtype=torch.long)
    tokens = torch.export.Dim("tokens", min=1, max=config.max_seq_len)
    with torch.no_grad(), quiet():
        return torch.export.export(
            backbone,
            (example, torch.zeros(1, dtype=torch.long)),
            dynamic_shapes=({1: tokens}, {}),
        )


def metadata_methods(backbone: Backbone, params: dict[str, Any]) -> dict[str, Any]:
    """The constant methods by which ExecuTorch's `TextLLMRunner` learns about a program.

    Source: `extension/llm/runner/constants.h` and `llm_runner_helper.cpp` in ExecuTorch.
    """
    config = backbone.config
    eos = params.get("eos_idx", [])
    methods: dict[str, Any] = {
        "get_max_seq_len": config.max_seq_len,
        "get_max_context_len": config.max_seq_len,
        "get_vocab_size": config.vocab_size,
        "get_n_layers": config.n_layers,
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": True,
        "enable_dynamic_shape": True,
        "quatrain_embedding_input": backbone.tok_embeddings is None,
        "quatrain_hidden_output": backbone.output is None,
    }
    if params.get("bos_idx") is not None:
        methods["get_bos_id"] = params["bos_idx"]
    if eos:
        methods["get_eos_ids"] = list(eos) if isinstance(eos, list) else [eos]
    return methods


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back the progress notes that torch and executorch log and warn while lowering."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
