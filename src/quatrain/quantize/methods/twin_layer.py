"""One layer as the floating-point model and the quantized one compute it, side by side.

A batch of 2B texts goes through the layer: its first half as the one, its second half as the other.
Each linear is rounded when its turn comes, when the inputs are there that it will have in the
quantized model and those that it should have had.
"""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from quatrain.arithmetic import VULKAN_ARITHMETIC
from quatrain.backbone.block import Block
from quatrain.backbone.layers.moe import show_picked_tokens
from quatrain.backbone.state import stored_name
from quatrain.linear.affine import fake_quantize_rows
from quatrain.quantize.methods.linear_inputs import LinearInputs, compute_linear
from quatrain.quantize.methods.round_to_nearest import quantize_groups

LEAST_TOKENS = 64  # that a linear must see to be rounded by second moments; an expert may not

Rounded = tuple[torch.Tensor, torch.Tensor]  # int8 [N, K] in [-8, 7], float32 scales [N, K / group]


class TwinLayer:
    """`block`, whose linears round themselves when it is run on 2B texts.

    `methods`: that of each linear in the plan, by its name there; those of another method than
    gptq stay as they are. `int8_texts` bool [B]: those whose activations are rounded as 8da4w
    does. `signed_scales`: whether scales may be negative. `advance` hears what part of the layer is
    rounded. `few`: the linears that saw too few tokens, rounded to nearest. `current`: the one that
    is rounded, or was last.
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
        # Not the block itself, whose linears hold this: a circle would keep its memory.
        self.methods, self.group_size, self.int8_texts = methods, group_size, int8_texts
        self.signed_scales = signed_scales
        self._factors = _factors_to_stream(block)
        self.advance = advance
        self.few: list[str] = []
        self.current = ""
        self._work = self._done = 0
        self._rounded: dict[str, list[Rounded]] = {}
        self._inputs: tuple[torch.Tensor, LinearInputs] | None = None
        self._stream: torch.Tensor | None = None
        show_picked_tokens(block)
        for module, linear in list(block.named_modules()):
            name = stored_name(module)
            if isinstance(linear, nn.Linear) and name in methods:
                block.set_submodule(module, _TwinLinear(name, linear, self))
                self._work += _work(linear.weight)
        for norm in (block.attention_norm, block.ffn_norm):
            if norm is not None:
                norm.register_forward_pre_hook(self._see_stream)

    def taken(self) -> dict[str, Rounded]:
        """What was rounded, by the names of the plan; of experts [E, N, K] and [E, N, groups]."""
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
        """What is known of the input x [2B, T, K], which linears that share it have one of."""
        if self._inputs is None or self._inputs[0] is not x:
            self._inputs = None  # lets go of the former
            exact, seen = x.chunk(2)
            if self.int8_texts.any():
                seen = seen.clone()
                smallest = VULKAN_ARITHMETIC.smallest_scale
                seen[self.int8_texts] = fake_quantize_rows(seen[self.int8_texts], smallest)
            self._inputs = x, LinearInputs(exact, seen, self.group_size)
        return self._inputs[1]

    def round(self, name: str, weight: torch.Tensor, inputs: LinearInputs) -> torch.Tensor:
        """The weight [N, K] that the linear has in the quantized model."""
        self.current = name
        if self.methods[name] != "gptq":
            return weight
        if inputs.tokens < LEAST_TOKENS:
            self.few.append(name)
            rounded = quantize_groups(weight, self.group_size, self.signed_scales)
        else:
            # What a router sends to an expert differs between the two models.
            toward = weight if ".experts." in name else self._toward_float(name, weight, inputs)
            rounded = inputs.second_order.round(toward, self.signed_scales)
        self._rounded.setdefault(name, []).append(rounded)
        self._done += _work(weight)
        self.advance(self._done / self._work)
        return dequantized(*rounded)

    def weigh(self, name: str, exact: torch.Tensor, inputs: LinearInputs) -> None:
        """Weigh each token's error by what a norm then divides it by, where `exact` [B, T, N] are
        the floating-point model's results and go to the residual stream: some tokens' states are a
        hundred times larger than the others', and would be all that is seen."""
        if name not in ("attention.wo", "attention.out_proj", "conv.out_proj", "feed_forward.w2"):
            return
        normed = exact
        if name in self._factors and self._stream is not None:
            normed = self._stream.chunk(2)[0] + self._factors[name] * exact
        mean_square = normed.flatten(0, -2).square().mean(-1, keepdim=True)
        inputs.weights /= mean_square.clamp(min=torch.finfo(torch.float32).tiny)

    def _toward_float(self, name: str, weight: torch.Tensor, inputs: LinearInputs) -> torch.Tensor:
        missing = None
        if name in self._factors and self._stream is not None:
            exact, seen = self._stream.chunk(2)
            missing = exact / self._factors[name], seen / self._factors[name]
        return inputs.toward_float(weight, missing)

    def _see_stream(self, norm: nn.Module, args: tuple[torch.Tensor]) -> None:
        self._stream = args[0]


def _factors_to_stream(block: Block) -> dict[str, float]:
    """The linears whose results are added to the residual stream, and times what; without those
    that a norm or a gate follows."""
    factor = 1.0 if block.scale_branch is None else float(block.scale_branch.factor)
    first = block.post_attention_norm is None and block.add_attn is None
    plain = {
        "attention.wo": first,
        "attention.out_proj": first,
        "conv.out_proj": first,
        # In parallel what wo gives has made up already for what the stream lacks.
        "feed_forward.w2": block.post_ffn_norm is None
        and block.add_ffn is None
        and not block.parallel,
    }
    return {name: factor for name, is_plain in plain.items() if is_plain}


class _TwinLinear(nn.Module):
    """`linear` on the first half of a batch, and rounded on the second."""

    def __init__(self, name: str, linear: nn.Linear, layer: TwinLayer) -> None:
        super().__init__()
        self.name, self.linear = name, linear
        self.layer = (layer,)  # not one of the module's children

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer, linear = self.layer[0], self.linear
        inputs = layer.inputs(x)
        made = torch.empty(*x.shape[:2], len(linear.weight))
        exact, seen = made.chunk(2)
        compute_linear(inputs.exact, linear.weight, linear.bias, exact.flatten(0, 1))
        layer.weigh(self.name, exact, inputs)
        weight = layer.round(self.name, linear.weight, inputs)
        compute_linear(inputs.seen, weight, linear.bias, seen.flatten(0, 1))
        return made


def _work(weight: torch.Tensor) -> int:
    """What it takes to round a weight [N, K], beside others."""
    rows, columns = weight.shape
    return rows * columns**2


def dequantized(values: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Integers [..., N, K] times their scales [..., N, groups], or [N], in float32 [..., N, K]."""
    groups = scales.reshape(*values.shape[:-1], -1, 1)
    return (values.unflatten(-1, (groups.shape[-2], -1)) * groups).flatten(-2)
