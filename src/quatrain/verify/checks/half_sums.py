"""What float16 changes of a program that computes in it, and whose prompts a phone sums in it."""

import math

from quatrain.arithmetic import Arithmetic
from quatrain.program import Tensor, VulkanGraph
from quatrain.program.inspect.linears import find_linears
from quatrain.program.vulkan.linear_kernels import WEIGHT_ONLY_LINEAR
from quatrain.verify.checks.layerwise import LayerwiseComparison

_HALF_A_UNIT = 2.0**-11  # of float16's last place, relatively

NOTE = (
    "The weight-only linears of prompts accumulate in float16, as on a phone, which explains "
    "most of the error of the worst probe; --activation-dtype fp32 accumulates in float32"
)


def half_sums_error(graph: VulkanGraph, arithmetic: Arithmetic) -> float:
    """The relative error that such sums may have: of the longest one, rounded half a unit to
    either side at each of its terms. 0 where no linear sums so."""
    lengths = [
        graph.tensor(graph.operators[linear.operator].named_args["x"]).shape[-1]
        for linear in find_linears(graph)
        if linear.kernel == WEIGHT_ONLY_LINEAR and _in_half(graph, linear.operator)
    ]
    return _HALF_A_UNIT * math.sqrt(max(lengths, default=0)) if arithmetic.half_sums else 0.0


def _in_half(graph: VulkanGraph, operator: int) -> bool:
    out = graph.values[graph.operators[operator].out]
    if not isinstance(out, Tensor) or out.dtype != "float16":
        return False
    return math.prod(out.shape[:-1]) > 1


def overflow_problems(compared: LayerwiseComparison, halves: float) -> list[str]:
    """Where a float16 program, which may be off by `halves` for its sums, gave what is not
    finite."""
    if not math.isinf(compared.worst):
        return []
    what = "values, or intermediate sums of a prompt," if halves else "values"
    return [
        f"{what} exceed float16's range, up to 65504; export again with --activation-dtype fp32"
    ]
