"""What `verify` says that it did not compare."""

import torch
from tests.support.defects.edited_methods import under_names
from tests.support.models.peer_models import LLAMA, write_peer_checkpoint
from tests.support.models.tiny_programs import TEXT
from tests.support.programs import artifact
from torch import nn

from quatrain.verify.checks.not_compared import not_compared
from quatrain.verify.verify import verify_program


def test_experts_of_many_layers_are_named_of_the_first() -> None:
    picked = {layer: torch.arange(8) % 8 != layer for layer in range(10)}
    _, said = not_compared((), nn.Module(), 8, False, picked)
    of_layers = "0 of layer 0; 1 of layer 1; 2 of layer 2; and some of 5 more layers"
    assert said.startswith(f"experts that no text is routed to, {of_layers}: ")


def test_methods_that_are_not_run_are_named(tmp_path) -> None:
    """As ExecuTorch's exporter writes them, with a method for calls of one token."""
    write_peer_checkpoint(tmp_path / "c", LLAMA)
    program = under_names(artifact("peer-xnnpack-8da4w"), "decode", "forward")(tmp_path)
    report = verify_program(program, tmp_path / "c", ("executorch",), (TEXT,), new_tokens=2)
    assert report.passed
    assert report.not_compared == ["what its method decode computes: only forward is run"]
