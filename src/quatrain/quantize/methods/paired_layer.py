"""One layer, computed as in the floating-point model and as in the quantized model, in one batch.

A batch of 2B texts goes through the layer: the first half as in the floating-point model, the
second half as in the quantized one. Each linear is rounded when it is reached, because then both
its inputs in the quantized model and its correct inputs are known.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from quatrain.arithmetic import VULKAN_ARITHMETIC
from quatrain.backbone.block import Block
from quatrain.backbone.layers.moe import show_picked_tokens
from quatrain.backbone.layers.norm import RMSNorm
from quatrain.backbone.state import stored_name
from quatrain.linear.affine import fake_quantize_rows
from quatrain.quantize.methods.linear_inputs import LinearInputs
from quatrain.quantize.methods.products import compute_linear
from quatrain.quantize.methods.round_to_nearest import quantize_groups
from quatrain.quantize.threads import torch_threads

_RIDGE_OF_GAINS = 0.1  # relative to the mean square of a norm's weights
_INTO_STREAM = (
    "attention.wo", "attention.out_proj", "conv.out_proj", "mamba.out_proj", "feed_forward.w2"
)  # fmt: skip
LEAST_TOKENS = 64  # a linear (an expert) that saw fewer is rounded to nearest

Rounded = tuple[torch.Tensor, torch.Tensor]  # int8 [N, K] in [-8, 7], float32 scales [N, K / group]


class PairedLayer:
    """`block`, whose linears round themselves when it is run on 2B texts.

    `methods`: the method of each linear, by its name in the plan; linears of other methods than
    gptq are not rounded. `int8_texts` bool [B]: the texts whose activations are rounded as in
    8da4w. `signed_scales`: whether scales may be negative. `advance` is called with the fraction of
    the layer that is rounded. `few`: the linears that saw too few tokens and were rounded to
    nearest. `current`: the linear that is being rounded, or was last.
    """

    def __init__(
        self,
        block: Block,
        methods: Mapping[str, str],
        group_size: int,
        int8_texts: torch.Tensor,
        signed_scales: bool = False,
        advance: Callable[[float], None] = lambda part: None,
    ) -> None:
        # Not the block itself: its linears refer to this object, and the reference cycle would keep
        # its memory.
        self.methods, self.group_size, self.int8_texts = methods, group_size, int8_texts
        self.signed_scales = signed_scales
        self._paths = _paths_to_stream(block)
        self.advance = advance
        self.few: list[str] = []
        self.current = ""
        self._relative_cost = self._done = 0
        self._rounded: dict[str, list[Rounded]] = {}
        self._inputs: tuple[torch.Tensor, LinearInputs] | None = None
        self._stream: torch.Tensor | None = None
        self._sizes = torch.ones(1)  # [B, T, 1]: rms of what the current linear adds to the stream
        show_picked_tokens(block)
        for module, linear in list(block.named_modules()):
            name = stored_name(module)
            if isinstance(linear, nn.Linear) and name in methods:
                block.set_submodule(module, _PairedLinear(name, linear, self))
                self._relative_cost += _relative_cost(linear.weight)
        for norm in (block.attention_norm, block.ffn_norm):
            if norm is not None:
                norm.register_forward_pre_hook(self._see_stream)

    def taken(self) -> dict[str, Rounded]:
        """The rounded linears by their names in the plan; experts as [E, N, K] and [E, N,
        groups]."""
        return {
            name: parts[0]
            if ".experts." not in name
            else (
                torch.stack([part[0] for part in parts]),
                torch.stack([part[1] for part in parts]),
            )
            for name, parts in self._rounded.items()
        }

    def inputs(self, x: torch.Tensor) -> LinearInputs:
        """The statistics of the input x [2B, T, K], shared by all linears that read it."""
        if self._inputs is None or self._inputs[0] is not x:
            self._inputs = None  # release the previous ones first
            exact, seen = x.chunk(2)
            if self.int8_texts.any():
                seen = seen.clone()
                smallest = VULKAN_ARITHMETIC.smallest_scale
                seen[self.int8_texts] = fake_quantize_rows(seen[self.int8_texts], smallest)
            self._inputs = x, LinearInputs(exact, seen, self.group_size)
        return self._inputs[1]

    def round(self, name: str, weight: torch.Tensor, inputs: LinearInputs) -> torch.Tensor:
        """The weight [N, K] of the linear in the quantized model."""
        self.current = name
        if self.methods[name] != "gptq":
            return weight
        if inputs.tokens < LEAST_TOKENS:
            self.few.append(name)
            rounded = quantize_groups(weight, self.group_size, self.signed_scales)
        else:
            # The router may send other tokens to an expert in the quantized model.
            toward = weight if ".experts." in name else self._toward_float(name, weight, inputs)
            rounded = inputs.second_order.round(toward, self.signed_scales)
        self._rounded.setdefault(name, []).append(rounded)
        self._done += _relative_cost(weight)
        self.advance(self._done / self._relative_cost)
        return dequantized(*rounded)

    def weigh(self, name: str, exact: torch.Tensor, inputs: LinearInputs) -> None:
        """Divide the weight of each token's error by the mean square that the following norm
        divides by, if `exact` [B, T, N], the floating-point model's results, go to the residual
        stream: the states of some tokens are a hundred times larger than the others' and would
        dominate."""
        if name not in _INTO_STREAM:
            return
        normed, path = exact, self._paths.get(name)
        if path is not None and path.gain is None and self._stream is not None:
            normed = self._stream.chunk(2)[0] + path.factor * exact
        mean_square = normed.square().mean(-1, keepdim=True)
        mean_square.clamp_(min=torch.finfo(torch.float32).tiny)
        inputs.weights /= mean_square.flatten(0, -2)
        self._sizes = mean_square.sqrt()

    def _toward_float(self, name: str, weight: torch.Tensor, inputs: LinearInputs) -> torch.Tensor:
        path, missing = self._paths.get(name), None
        if path is not None and self._stream is not None:
            exact, seen = self._stream.chunk(2)
            taken = path.per_result(self._sizes)
            missing = exact * taken, seen * taken
        return inputs.toward_float(weight, missing)

    def _see_stream(self, norm: nn.Module, args: tuple[torch.Tensor]) -> None:
        self._stream = args[0]


@dataclass(frozen=True)
class _StreamPath:
    """How the result y [..., N] of a linear is added to the residual stream: multiplied by
    `factor`, or, if a norm with weight `gain` [N] follows the linear, by `factor * gain /
    rms(y)`."""

    factor: float
    gain: torch.Tensor | None = None

    def per_result(self, sizes: torch.Tensor) -> torch.Tensor:
        """How much of y corrects an error of 1 in the stream, for y's root mean square [..., 1]:
        small if the gain of a channel is small, for which y would have to be large."""
        if self.gain is None:
            return torch.tensor(1 / self.factor)
        square = self.gain.square()
        return sizes * self.gain / (square + _RIDGE_OF_GAINS * square.mean()) / self.factor


def _paths_to_stream(block: Block) -> dict[str, _StreamPath]:
    """The paths of linears whose results are added to the residual stream, except those followed by
    a gate."""
    factor = 1.0 if block.scale_branch is None else float(block.scale_branch.factor)
    attention = (block.post_attention_norm, block.add_attn)
    feed_forward = (block.post_ffn_norm, block.add_ffn)
    joining = {
        "attention.wo": attention,
        "attention.out_proj": attention,
        "conv.out_proj": attention,
        # Beside attention, wo has corrected the stream's error already.
        **({} if block.attention is not None else {"mamba.out_proj": attention}),
        # In a parallel block, wo has corrected the stream's error already.
        **({} if block.parallel else {"feed_forward.w2": feed_forward}),
    }
    paths = {}
    for name, (norm, gate) in joining.items():
        if gate is None and norm is None:
            paths[name] = _StreamPath(factor)
        # With AltUp, a layer sees only one of several streams.
        elif gate is None and isinstance(norm, RMSNorm) and block.alt_up is None:
            paths[name] = _StreamPath(factor, norm.weight)
    return paths


class _PairedLinear(nn.Module):
    """`linear` on the first half of a batch, and its rounded weight on the second."""

    def __init__(self, name: str, linear: nn.Linear, layer: PairedLayer) -> None:
        super().__init__()
        self.name, self.linear = name, linear
        self.layer = (layer,)  # a tuple, so that it is not a submodule

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer, linear = self.layer[0], self.linear
        inputs = layer.inputs(x)
        made = torch.empty(*x.shape[:2], len(linear.weight))
        exact, seen = made.chunk(2)
        with torch_threads(1):
            compute_linear(inputs.exact, linear.weight, linear.bias, exact.flatten(0, 1))
        layer.weigh(self.name, exact, inputs)
        with torch_threads(1):
            weight = layer.round(self.name, linear.weight, inputs)
            compute_linear(inputs.seen, weight, linear.bias, seen.flatten(0, 1))
        return made


def _relative_cost(weight: torch.Tensor) -> int:
    """The relative cost of rounding a weight [N, K]."""
    rows, columns = weight.shape
    return rows * columns**2


def dequantized(values: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Integers [..., N, K] times their scales [..., N, groups], or [N], in float32 [..., N, K]."""
    groups = scales.reshape(*values.shape[:-1], -1, 1)
    return (values.unflatten(-1, (groups.shape[-2], -1)) * groups).flatten(-2)
