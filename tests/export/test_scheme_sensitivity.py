"""What `--linear-scheme auto` measures and chooses by: against a whole pass over the backbone."""

from dataclasses import replace

import pytest
import torch
from tests.support.models.families import ROWS
from tests.support.models.family_errors import model_of
from tests.support.models.peers import saved

from quatrain.arithmetic import VULKAN_ARITHMETIC
from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.open import open_checkpoint
from quatrain.export.auto_schemes import plan_schemes
from quatrain.export.scheme_sensitivity import SchemeSensitivity, int4_linears
from quatrain.int4 import Scheme
from quatrain.linear import WeightOnlyInt4Linear
from quatrain.quantize.pipeline import quantize_model

FLOATING = replace(VULKAN_ARITHMETIC, least_quantized_rows=None)


@torch.inference_mode()
def test_every_linear_counts_those_before_the_layers_too(tmp_path):
    """Of Gemma 3n the streams' projections, and what is made of the embeddings for each layer."""
    model = saved(model_of(ROWS["gemma3n, of four streams"]), tmp_path / "m")
    quantize_model(model, tmp_path / "int4", method="rtn")
    opened = open_checkpoint(tmp_path / "int4")
    tokens = torch.randint(90, (2, 16), generator=torch.Generator().manual_seed(0))
    backbone = build_backbone(opened.config, opened.tensors)
    measured = SchemeSensitivity(backbone, tokens)
    costs = measured.of_each(lambda part: None)
    before = [name for name in costs if name.startswith(("alt_up.projections", "per_layer."))]
    assert len(before) == 4
    together = measured.of_all(before)

    def logs(dynamic) -> torch.Tensor:
        for name, linear in int4_linears(backbone).items():
            linear.arithmetic = VULKAN_ARITHMETIC if name in dynamic else FLOATING
        return backbone.logits(backbone.hidden(tokens, 0)).double().log_softmax(-1)

    exact = logs(())
    for names, found in [*(([name], costs[name]) for name in before), (before, together)]:
        kl = float((exact.exp() * (exact - logs(names))).sum(-1).mean())
        # What one costs is a millionth of a nat here, and logits are float32.
        assert kl > 0 and found == pytest.approx(kl, rel=0.2), names


def test_of_linears_that_cost_the_same_the_first_are_chosen():
    names = [f"layers.{index}.attention.wq" for index in range(20)]

    class Measured:
        linears = dict.fromkeys(names, WeightOnlyInt4Linear(32, 32, groupsize=32))

        def of_all(self, dynamic) -> float:
            return len(dynamic)

    costs, tokens = dict.fromkeys(names, 0.0), torch.zeros(4, 64, dtype=torch.int64)
    plan = plan_schemes(Measured(), costs, {}, max_kl=10, tokens=tokens)  # type: ignore[arg-type]
    chosen = [name for name, one in plan.linears.items() if one.scheme == Scheme.WEIGHT_ONLY]
    assert chosen == names[:10]
