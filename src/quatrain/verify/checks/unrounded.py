"""A CPU program beside its backbone, both without rounding activations to int8 or float16.

In 8da4w the logits of a right program are off by some hundredths, in which a norm in another's
place, or a rotation before in place of after one, may hide. Without that rounding they are off by
float32's alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from quatrain.arithmetic import XNNPACK_ARITHMETIC
from quatrain.backbone.layers.feed_forward import ACTIVATIONS, FeedForward
from quatrain.backbone.layers.kv_cache import CachedAttention
from quatrain.backbone.layers.per_layer import PerLayerBranch
from quatrain.backbone.model import Backbone
from quatrain.errors import InputError
from quatrain.export.kernels.assignment import dequantized
from quatrain.int4 import XNNPACK_GROUP_SIZES
from quatrain.linear import Int8DynActInt8WeightLinear
from quatrain.linear.int4 import Int4Linear, compute_as, freeze_weights
from quatrain.program import Program
from quatrain.runtime.runner import Runner, forward_in_parts
from quatrain.runtime.unrounded.errors import NotComputed, UnknownNode
from quatrain.runtime.unrounded.runner import UnroundedRunner
from quatrain.verify.checks.layerwise import relative_error
from quatrain.verify.checks.parity import EagerLogits, nudged_embedding

LOGITS_ERROR = 2e-6  # of logits, or so many times what a nudge of the embedding does to them
_FLOORS = 4.0
_NUDGE, _DRAWS = 1e-6, 3


@dataclass(frozen=True)
class UnroundedCheck:
    """The largest relative error of logits, of which rounding explains the `allowed`, or more where
    it is less; `problem` is None if it is no more. Where there are no logits, the one is
    infinite and the other 0."""

    error: float
    allowed: float
    problem: str | None

    @property
    def is_computed(self) -> bool:
        """Whether there were logits to compare."""
        return self.allowed > 0


def compare_unrounded(
    program: Program,
    backbone: Backbone,
    eager: EagerLogits,
    strict: bool,
    are_stored: bool,
    advance: Callable[[float], None],
) -> UnroundedCheck | None:
    """Compare the logits of `program` with those of `backbone`, which stays without rounding, over
    the texts of `eager`. None if a part of the program is not computed here; `strict`: what no
    program of ours has in a delegate, or cannot be computed, is a problem. `are_stored`: its
    constants are those of `backbone`, rounded alike."""
    try:
        runner = UnroundedRunner(program)
        if runner.has_halves and not are_stored:
            raise NotComputed("constants in float16, some in another form than the checkpoint's")
        _leave_unrounded(backbone, in_groups=runner.has_int4_groups)
        if runner.has_exact_gelu and not strict:
            _compute_gelu_exactly(backbone)
        expected = _logits(backbone, eager, lambda part: advance(part / 4))
        found = _logits(runner, eager, lambda part: advance((1 + part) / 4))
    except (NotComputed, InputError) as error:
        unknown = isinstance(error, NotComputed)
        if not strict or (unknown and not isinstance(error, UnknownNode)):
            return None
        what = f"it has {error}, as no" if unknown else f"{error}, as in no"
        problem = f"{what} program of this version's has: it is damaged, or another version's"
        return UnroundedCheck(float("inf"), 0.0, f"{problem}. Export it again")
    error = _largest_error(found, expected)
    floor = 0.0
    for seed in range(_DRAWS if error > LOGITS_ERROR else 0):
        with nudged_embedding(backbone, _NUDGE, seed):
            half = (2 + 2 * seed / _DRAWS) / 4
            moved = _logits(backbone, eager, lambda part, at=half: advance(at + part / 2 / _DRAWS))
        floor = max(floor, _largest_error(moved, expected))
    allowed = max(LOGITS_ERROR, _FLOORS * floor)
    types = "int8 and float16" if runner.has_halves else "int8"
    problem = (
        f"without rounding activations to {types} the logits differ by {error:.2g}, relatively; "
        f"float32 explains up to {allowed:.2g}"
    )
    return UnroundedCheck(error, allowed, None if error <= allowed else problem)


def _leave_unrounded(backbone: Backbone, in_groups: bool) -> None:
    """Let the linears of `backbone` take activations as they are, and attention keys and values, in
    place; `in_groups`: their program holds those linears of int4 as XNNPACK's kernels take them,
    with scales in bfloat16."""
    compute_as(backbone, replace(XNNPACK_ARITHMETIC, least_quantized_rows=None))
    for name, module in list(backbone.named_modules()):
        if isinstance(module, CachedAttention):
            module.rounds_to_int8 = False
        elif isinstance(module, Int8DynActInt8WeightLinear):
            backbone.set_submodule(name, dequantized(module))
        elif isinstance(module, Int4Linear) and module.groupsize in XNNPACK_GROUP_SIZES:
            stored = module.scales.bfloat16().to(module.scales.dtype)
            if in_groups and not stored.equal(module.scales):
                module.scales = stored
                freeze_weights(module)


def exact_gelu(x: torch.Tensor) -> torch.Tensor:
    """GELU of x [...], in place of the tanh approximation that a model defines."""
    return F.gelu(x)


def _compute_gelu_exactly(backbone: Backbone) -> None:
    """As XNNPACK's delegates of other exporters do for either kind: ExecuTorch's partitioner does
    not read which one it is (`op_gelu.py` of its XNNPACK backend)."""
    for module in backbone.modules():
        is_one = isinstance(module, FeedForward | PerLayerBranch)
        if is_one and module.activate is ACTIVATIONS["gelu_approx"]:
            module.activate = exact_gelu


def _logits(
    runner: Runner, eager: EagerLogits, advance: Callable[[float], None]
) -> list[torch.Tensor]:
    """Those [V] after each prompt, after what follows it greedily, and after the last of that."""
    rows = []
    for place, (prompt, follow) in enumerate(zip(eager.texts, eager.follows, strict=True), 1):
        runner.reset()
        at = 0
        for part in (prompt, follow[:-1], follow[-1:]):
            if part:
                rows.append(forward_in_parts(runner, torch.tensor([part]), at)[0].float())
            at += len(part)
        advance(place / len(eager.texts))
    return rows


def _largest_error(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """Of the finite logits; infinite if others are not finite."""
    errors = []
    for one, want in zip(found, expected, strict=True):
        finite = want.isfinite()
        alike = torch.equal(one.isfinite(), finite)  # never of another vocabulary
        errors.append(relative_error(one[finite], want[finite]) if alike else float("inf"))
    return max(errors)
