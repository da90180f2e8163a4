"""A short convolution as operators that both backends have.

A filter is a sum of products, each with the inputs shifted by a token: Vulkan's 1-D convolution
wants channels before tokens, which would be two transpositions more, and XNNPACK's runs elsewhere.
"""

import torch
from torch import nn

from quatrain.backbone.short_conv import CausalConv, shifted_sum


class KeptConv(nn.Module):
    """`CausalConv` whose state `llama::update_cache` writes anew in each call.

    Buffers: `tap_0` and on [dim], the oldest input's first; `conv_state`, of `state_shape`, which
    holds L - 1 rows of dim; `goes_on` [context], 0 at position 0 and 1 elsewhere, by which what a
    former text has left is multiplied.
    """

    conv_state: torch.Tensor
    goes_on: torch.Tensor

    def __init__(self, conv: CausalConv, context: int, state_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.taps = conv.taps
        for index in range(conv.taps):
            self.register_buffer(f"tap_{index}", conv.weight[:, 0, index].contiguous())
        self.register_buffer("conv_state", torch.zeros(state_shape))
        goes_on = torch.ones(context)
        goes_on[0] = 0.0
        self.register_buffer("goes_on", goes_on)

    def forward(self, x: torch.Tensor, start: int) -> torch.Tensor:
        """x [1, T, dim] at positions `start` onwards; returns [1, T, dim]."""
        _, length, dim = x.shape
        kept = self.taps - 1
        state = _as_shape(self.conv_state, (1, kept, dim))
        every = torch.cat((state * self.goes_on.narrow(0, start, 1), x), dim=1)
        last = _as_shape(every.narrow(1, length, kept), tuple(self.conv_state.shape))
        # Of equal shapes it copies the one into the other, whatever their dimensions mean.
        torch.ops.llama.update_cache.default(last, self.conv_state, 0)
        taps = [self.get_buffer(f"tap_{index}") for index in range(self.taps)]
        return shifted_sum(every, length, taps)


def _as_shape(tensor: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return tensor if tuple(tensor.shape) == shape else tensor.view(shape)
