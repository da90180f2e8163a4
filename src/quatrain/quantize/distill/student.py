"""A quantized backbone whose scales and norms are trained, and, if asked for, its integers."""

import re
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.utils import parametrize

from quatrain.backbone.layers.mamba import GroupNorm
from quatrain.backbone.layers.norm import InputScaledNorm, LayerNorm, RMSNorm
from quatrain.backbone.model import Backbone
from quatrain.backbone.state import stored_name
from quatrain.linear import Int4Linear, Int8DynActInt8WeightLinear, QuantizedGroupEmbedding
from quatrain.quantize.distill.student_layers import (
    Activations,
    Factor,
    ScaledIntegers,
    StudentEmbedding,
    StudentLinear,
)

_NORMS = (RMSNorm, InputScaledNorm, LayerNorm, GroupNorm)


class Student:
    """`backbone`, which was built weight-only, with layers that can be trained in place of its own.

    `trained`: the names, in the checkpoint, of the weights whose scales are, and of the vectors.
    What is tied stays so: an output layer that has the embedding's integers shares them, and their
    scales. `dtype`: what all linears but the output layer compute in. `floats`: gives the weight
    that integers were rounded from, by its name in the checkpoint; with it they are trained too.
    """

    def __init__(
        self,
        backbone: Backbone,
        trained: Collection[str],
        dtype: torch.dtype,
        floats: Callable[[str], torch.Tensor] | None = None,
    ) -> None:
        self.backbone, self._trained, self._floats = backbone, trained, floats
        backbone.expand = None  # of a pruned vocabulary: -inf has no divergence
        self.layers = Activations(dtype)
        self._output = Activations(torch.float32)  # sees one row at a time, and so no int8
        self._integers: dict[str, ScaledIntegers] = {}
        self._vectors: dict[str, tuple[torch.Tensor, Factor]] = {}
        for name, module in list(backbone.named_modules()):
            self._replace(name, module)

    def factors(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """What is trained: logarithms of the factors of scales, and of vectors."""
        of_scales = {id(one): one.factor.log for one in self._integers.values()}
        of_vectors = [factor.log for _, factor in self._vectors.values()]
        return [log for log in of_scales.values() if log.requires_grad], of_vectors

    def latents(self) -> list[nn.Parameter]:
        """What the integers that are trained are rounded from."""
        found = {id(one): one.latent for one in self._integers.values()}
        return [latent for latent in found.values() if latent is not None]

    def hidden(self, tokens: torch.Tensor, int8: bool) -> torch.Tensor:
        """The normed hidden states [B, T, dim] of `tokens` int64 [B, T], each text from an empty
        context; `int8`: computed as 8da4w."""
        self.layers.int8 = int8
        # Empty caches, which hold on to nothing that was computed before.
        self.backbone.make_room(*tokens.shape, dtype=self.layers.dtype, device=tokens.device)
        # Attention needs queries and keys of the same dtype, whatever the norms return.
        wide = self.layers.dtype == torch.float32
        with (
            torch.device(tokens.device),
            torch.autocast(tokens.device.type, self.layers.dtype, enabled=not wide),
        ):
            return self.backbone.hidden(tokens, 0)

    def held_output(self) -> AbstractContextManager[None]:
        """Of several calls of `backbone.logits`, each with a backward pass of its own."""
        output = self.backbone.output
        return output.held() if isinstance(output, StudentLinear) else nullcontext()

    @torch.no_grad()
    def tensors(self) -> dict[str, torch.Tensor]:
        """What the checkpoint is to have in place of its own, by name: float32, scales in values
        of bfloat16, and integers int8."""
        found: dict[str, list[torch.Tensor]] = {}
        for module, integers in self._integers.items():
            name = stored_name(module)
            if integers.factor.log.requires_grad:
                scales = integers.scales().bfloat16().float().cpu()
                found.setdefault(f"{name}.scales", []).append(scales)
            if integers.latent is not None:
                found.setdefault(f"{name}.weight", []).append(integers.integers().cpu())
        made = {
            name: torch.stack(parts) if ".experts." in name else parts[0]
            for name, parts in found.items()
        }
        return made | {
            f"{name}.weight": factor(first).cpu() for name, (first, factor) in self._vectors.items()
        }

    def _replace(self, name: str, module: nn.Module) -> None:
        new = None
        if isinstance(module, Int4Linear):
            activations = self._output if name.startswith("output") else self.layers
            integers = self._integers_of(name, module.weight, module.scales)
            new = StudentLinear(integers, module.bias, activations)
        elif isinstance(module, QuantizedGroupEmbedding) and module.bit_width == 4:
            scales = module.scales.view(module.vocab_size, -1)
            new = StudentEmbedding(self._integers_of(name, module.weight, scales))
        elif isinstance(module, Int8DynActInt8WeightLinear):
            integers = ScaledIntegers(module.weight, module.scales.view(-1, 1), trained=False)
            new = StudentLinear(integers, None, self._output)
        if new is not None:
            self.backbone.set_submodule(name, new)
        elif isinstance(module, _NORMS) and f"{name}.weight" in self._trained:
            factor = Factor(module.weight)
            self._vectors[name] = module.weight.detach(), factor
            parametrize.register_parametrization(module, "weight", factor)

    def _integers_of(
        self, name: str, integers: torch.Tensor, scales: torch.Tensor
    ) -> ScaledIntegers:
        embedding = self._integers.get("tok_embeddings")
        if name == "output" and embedding and torch.equal(embedding.first_integers, integers):
            self._integers[name] = embedding
        else:
            weight = f"{stored_name(name)}.weight"
            trained = weight in self._trained
            made = self._integers[name] = ScaledIntegers(integers, scales, trained)
            if trained and self._floats:
                exact = self._floats(weight)
                expert = re.search(r"\.experts\.(\d+)\.", name)
                made.learn(exact[int(expert[1])] if expert else exact)
        return self._integers[name]
