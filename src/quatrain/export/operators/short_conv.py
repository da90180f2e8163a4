"""A short convolution as operators of both backends.

A filter is a sum of products, each with the inputs shifted by a token: Vulkan's 1-D convolution
wants channels before tokens, which would be two transpositions more, and XNNPACK's runs elsewhere.
"""

import torch
from torch import nn

from quatrain.backbone.layers.short_conv import CausalConv, shifted_sum


class KeptConv(nn.Module):
    """`CausalConv` whose state is written in each call by `llama::update_cache`.

    Buffers: `tap_0` and on [dim], the oldest input's first; `bias` [dim] or None; `conv_state`, of
    `state_shape`, which holds L - 1 rows of dim; `zeros` [1, L - 1, dim], which are read instead at
    position 0. Multiplying the state of the previous text by 0 would keep its NaN forever.
    """

    bias: torch.Tensor | None
    conv_state: torch.Tensor
    zeros: torch.Tensor

    def __init__(self, conv: CausalConv, context: int, state_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.taps, self.context = conv.taps, context
        for index in range(conv.taps):
            self.register_buffer(f"tap_{index}", conv.weight[:, 0, index].contiguous())
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())
        self.register_buffer("conv_state", torch.zeros(state_shape))
        self.register_buffer("zeros", torch.zeros_like(conv.conv_state))

    def forward(self, x: torch.Tensor, start: int) -> torch.Tensor:
        """x [1, T, dim] at positions `start` onwards; returns [1, T, dim]."""
        taps = [self.get_buffer(f"tap_{index}") for index in range(self.taps)]
        return shifted_sum(self.shifted(x, start), taps, self.bias)

    def shifted(self, x: torch.Tensor, start: int) -> list[torch.Tensor]:
        """Of `forward`'s x what each tap is multiplied by, [1, T, dim], the last x itself."""
        _, length, dim = x.shape
        kept = self.taps - 1
        state = _as_shape(self.conv_state, (1, kept, dim))
        first = goes_on(start, self.context) * kept
        before = torch.cat((self.zeros, state), dim=1).narrow(1, first, kept)
        every = torch.cat((before, x), dim=1)
        last = _as_shape(every.narrow(1, length, kept), tuple(self.conv_state.shape))
        # Of equal shapes it copies the one into the other, whatever their dimensions mean.
        torch.ops.llama.update_cache.default(last, self.conv_state, 0)
        return [*(every.narrow(1, shift, length) for shift in range(kept)), x]


def goes_on(start: int, context: int) -> int:
    """0 at position 0, where a text begins, and 1 at all others of the context: for tracing."""
    return (start + context) // (context + 1)


def _as_shape(tensor: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return tensor if tuple(tensor.shape) == shape else tensor.view(shape)
