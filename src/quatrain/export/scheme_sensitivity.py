"""Measures how much int8 activations cost in a prompt, linear by linear."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch

from quatrain.arithmetic import VULKAN_ARITHMETIC
from quatrain.backbone.model import Backbone
from quatrain.backbone.perplexity import kl_divergence
from quatrain.linear.int4 import OF_LAST_TOKEN, Int8DynActInt4WeightLinear

_FLOATING = replace(VULKAN_ARITHMETIC, least_quantized_rows=None)


class SchemeSensitivity:
    """A text, read with a backbone whose linears are switched between the two schemes.

    `backbone`: in 8da4w, its weights frozen; `tokens`: int64 [texts, T], each read from an empty
    context. What is measured is KL(all weight-only || some in 8da4w), in nats, the mean over all
    positions, with the arithmetic of ExecuTorch's Vulkan runtime.
    """

    @torch.inference_mode()
    def __init__(self, backbone: Backbone, tokens: torch.Tensor) -> None:
        self._backbone = backbone
        self.linears = int4_linears(backbone)
        texts, length = tokens.shape
        backbone.make_room(texts, length)
        self._switch(())
        x = backbone.embed(tokens)
        own = backbone.own_inputs(tokens, x)
        self._tokens, self._inputs = tokens, [x]
        for index in range(len(backbone.layers)):
            x = backbone.run_layers(x, 0, index, index + 1, own)
            self._inputs.append(x)
        self._wanted = self._log_probabilities(x)

    @torch.inference_mode()
    def of_all(self, names: Iterable[str]) -> float:
        """With the linears of these names in 8da4w."""
        self._switch(names)
        return self._divergence(-1)

    @torch.inference_mode()
    def of_each(self, advance: Callable[[float], None]) -> dict[str, float]:
        """The divergence with only one linear in 8da4w, for each linear; `advance` is called with
        the completed fraction."""
        # From the last layer backwards, so that the caches of earlier layers, which some layers
        # read, are not changed.
        names = sorted(self.linears, key=_layer, reverse=True)
        found = {}
        for done, name in enumerate(names):
            if name in OF_LAST_TOKEN:  # one row, which is never quantized
                found[name] = 0.0
            else:
                self._switch([name])
                found[name] = self._divergence(_layer(name))
            advance((done + 1) / len(names))
        return {name: found[name] for name in self.linears}

    def _switch(self, dynamic: Iterable[str]) -> None:
        dynamic = set(dynamic).difference(OF_LAST_TOKEN)
        for name, linear in self.linears.items():
            linear.arithmetic = VULKAN_ARITHMETIC if name in dynamic else _FLOATING

    def _divergence(self, first: int) -> float:
        """With the linears switched from layer `first` on, or, at -1, before the layers."""
        own = self._backbone.own_inputs(self._tokens, self._inputs[0])
        x = self._backbone.embed(self._tokens) if first < 0 else self._inputs[first]
        x = self._backbone.run_layers(x, 0, max(first, 0), own=own)
        return max(0.0, float(kl_divergence(self._wanted, self._log_probabilities(x)).mean()))

    def _log_probabilities(self, x: torch.Tensor) -> torch.Tensor:
        return self._backbone.logits(self._backbone.normed(x)).log_softmax(-1)


def int4_linears(backbone: Backbone) -> dict[str, Int8DynActInt4WeightLinear]:
    """The int4 linears of a `backbone` in 8da4w, by name."""
    return {
        name: module
        for name, module in backbone.named_modules()
        if isinstance(module, Int8DynActInt4WeightLinear)
    }


def _layer(name: str) -> int:
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "layers" else -1
