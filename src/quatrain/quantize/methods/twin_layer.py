"""One layer as the floating-point model and the quantized one compute it, side by side.

A batch of 2B texts goes through the layer: its first half as the one, its second half as the other.
Each linear is rounded when its turn comes, when the inputs are there that it will have in the
quantized model and those that it should have had.
"""

import re
from collections.abc import Mapping
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import nn

from quatrain.arithmetic import VULKAN_ARITHMETIC
from quatrain.backbone.model import Block
from quatrain.linear.affine import fake_quantize_rows
from quatrain.quantize.methods.round_to_nearest import quantize_groups
from quatrain.quantize.methods.second_order import SecondMoments

_TOWARD_FLOAT = 0.5  # how much of the difference to the floating-point outputs is made good
_RIDGE = 0.2  # of H's mean diagonal, in that regression
LEAST_TOKENS = 64  # that a linear must see to be rounded by second moments; an expert may not

Rounded = tuple[torch.Tensor, torch.Tensor]  # int8 [N, K] in [-8, 7], float32 scales [N, K / group]


class LinearInputs:
    """What linears see that share an input: `exact` and `seen` [..., K], as the floating-point
    model has it and as the quantized one does."""

    def __init__(self, exact: torch.Tensor, seen: torch.Tensor, group_size: int) -> None:
        self.exact, self.seen = exact.flatten(0, -2), seen.flatten(0, -2)
        self.group_size = group_size
        # What a router sends elsewhere is a row of zeros.
        self.tokens = int(self.seen.any(-1).sum())

    @cached_property
    def moments(self) -> torch.Tensor:
        """H = E[seen seen^T], [K, K]. Raises `ValueError` where that is not finite."""
        moments = self.seen.T @ self.seen / self.tokens
        if not torch.isfinite(moments).all():
            raise ValueError("gets inputs that are not finite")
        return moments

    @cached_property
    def second_order(self) -> SecondMoments:
        return SecondMoments(self.moments, self.group_size)

    @cached_property
    def _inverse(self) -> torch.Tensor:
        """(H + l mean(diag H) I)^-1 in float64."""
        ridged = self.moments.double()
        ridged.diagonal().add_(_RIDGE * float(ridged.diagonal().mean()))
        return torch.cholesky_inverse(torch.linalg.cholesky(ridged))

    @cached_property
    def _regression(self) -> torch.Tensor:
        """What of exact - seen can be told from seen, [K, K]: its rows times seen."""
        missing = (self.exact - self.seen).T @ self.seen / self.tokens
        return (missing.double() @ self._inverse).float()

    def toward_float(
        self, weight: torch.Tensor, missing: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The weight [N, K] that, of `seen`, makes more of what `weight` makes of `exact`, and of
        `missing` [..., N] besides."""
        change = weight @ self._regression
        if missing is not None:
            covariance = missing.flatten(0, -2).T @ self.seen / self.tokens
            change += (covariance.double() @ self._inverse).float()
        return weight + _TOWARD_FLOAT * change


class TwinLayer:
    """`block`, whose linears round themselves when it is run on 2B texts.

    `methods`: that of each linear in the plan, by its name there; those of another method than
    gptq stay as they are. `int8_texts` bool [B]: those whose activations are rounded as 8da4w
    does. `few`: the linears that saw too few tokens, rounded to nearest. `current`: the one that
    is rounded, or was last.
    """

    def __init__(
        self, block: Block, methods: Mapping[str, str], group_size: int, int8_texts: torch.Tensor
    ) -> None:
        # Not the block itself, whose linears hold this: a circle would keep its memory.
        self.methods, self.group_size, self.int8_texts = methods, group_size, int8_texts
        self._factors = _factors_to_stream(block)
        self.few: list[str] = []
        self.current = ""
        self._rounded: dict[str, list[Rounded]] = {}
        self._inputs: tuple[torch.Tensor, LinearInputs] | None = None
        self._stream: torch.Tensor | None = None
        for module, linear in list(block.named_modules()):
            name = _name_in_plan(module)
            if isinstance(linear, nn.Linear) and name in methods:
                block.set_submodule(module, _TwinLinear(name, linear, self))
        for norm in (block.attention_norm, block.ffn_norm):
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
            rounded = quantize_groups(weight, self.group_size)
        else:
            # What a router sends to an expert differs between the two models.
            toward = weight if ".experts." in name else self._toward_float(name, weight, inputs)
            rounded = inputs.second_order.round(toward)
        self._rounded.setdefault(name, []).append(rounded)
        return dequantized(*rounded)

    def _toward_float(self, name: str, weight: torch.Tensor, inputs: LinearInputs) -> torch.Tensor:
        missing = None
        if name in self._factors and self._stream is not None:
            exact, seen = self._stream.chunk(2)
            missing = (exact - seen) / self._factors[name]
        return inputs.toward_float(weight, missing)

    def _see_stream(self, norm: nn.Module, args: tuple[torch.Tensor]) -> None:
        self._stream = args[0]


def _factors_to_stream(block: Block) -> dict[str, float]:
    """The linears whose results are added to the residual stream, and times what; without those
    that a norm or a gate follows."""
    factor = 1.0 if block.scale_branch is None else float(block.scale_branch.factor)
    plain = {
        "attention.wo": block.post_attention_norm is None and block.add_attn is None,
        "feed_forward.w2": block.post_ffn_norm is None and block.add_ffn is None,
    }
    return {name: factor for name, is_plain in plain.items() if is_plain}


class _TwinLinear(nn.Module):
    """`linear` on the first half of a batch, and rounded on the second."""

    def __init__(self, name: str, linear: nn.Linear, layer: TwinLayer) -> None:
        super().__init__()
        self.name, self.linear = name, linear
        self.layer = (layer,)  # not one of the module's children

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inputs = self.layer[0].inputs(x)
        weight = self.layer[0].round(self.name, self.linear.weight, inputs)
        shape = (len(x) // 2, x.shape[1], -1)
        exact = self.linear(inputs.exact).view(shape)
        return torch.cat([exact, F.linear(inputs.seen, weight, self.linear.bias).view(shape)])


def _name_in_plan(module: str) -> str:
    """Experts are one tensor there; a rotated linear has its own inside."""
    return re.sub(r"\.experts\.\d+\.", ".experts.", module.removesuffix(".base"))


def dequantized(values: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Integers [N, K] times their scales [N, groups], or [N], in float32 [N, K]."""
    groups = scales.view(len(scales), -1, 1)
    return (values.view(len(values), groups.shape[1], -1) * groups).flatten(1)
