"""What rounding cost a model: its predictions of a held-out text, against floating point."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from quatrain.backbone.layer_by_layer import LayerByLayer
from quatrain.backbone.perplexity import (
    kl_divergence,
    perplexity_ratio,
    same_most_likely,
    token_losses,
)
from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.files.memory_map import only_read, release_mapped
from quatrain.checkpoint.float_model import FloatModel
from quatrain.checkpoint.open import open_checkpoint
from quatrain.errors import InputError
from quatrain.quantize.calibration import Calibration, tokens_of_files, writes
from quatrain.quantize.methods.paired_layer import dequantized
from quatrain.quantize.opened_source import OpenedSource
from quatrain.stages import Stages

# Nothing may be calibrated on it, or chosen by it.
HELD_OUT_TEXT = Path(__file__).with_name("held_out.txt")
_LOGITS_AT_ONCE = 1 << 24  # 67 MB of them
_ROWS_AT_ONCE = 8192  # of an output layer


@dataclass(frozen=True)
class Cost:
    """How far a checkpoint, computed as weight-only, is from the model that was rounded.

    Attributes:
        tokens: How many were predicted, of the text `held_out.txt`.
        perplexity: The floating-point model's.
        perplexity_ratio: The checkpoint's over that.
        perplexity_ratio_error: The standard error of the ratio, of the differences token by token.
        kl: The mean KL(model || checkpoint), in nats.
        top1_agreement: The part of tokens, 0 to 1, with the same most likely next one.
    """

    tokens: int
    perplexity: float
    perplexity_ratio: float
    perplexity_ratio_error: float
    kl: float
    top1_agreement: float


class Dequantized(Mapping[str, torch.Tensor]):
    """A checkpoint's tensors in floating point, dequantized when indexed."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors
        self._names = [name for name in tensors if not name.endswith((".scales", ".zeros"))]

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor, scales = self._tensors[name], f"{name.removesuffix('.weight')}.scales"
        if scales not in self._tensors:
            return tensor
        return dequantized(tensor, self._tensors[scales].float())

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def measured_cost(
    opened: OpenedSource, output: Path, stages: Stages
) -> tuple[Cost | None, list[str]]:
    """(the loss of quality of the checkpoint `output`, quantized from the model `opened`; a note if
    it could not be measured)"""
    model, tokenizer = opened.source, opened.tokenizer
    assert isinstance(model, FloatModel)
    if not writes(model.config):
        lacks = "the model has no output layer, or a pruned vocabulary"
        return None, [f"The increase in perplexity was not measured: {lacks}."]
    usual = Calibration.usual(model, tokenizer)
    if usual is None or usual.self_generated is not None:
        return None, ["The increase in perplexity was not measured: the model has no tokenizer."]
    try:
        tokens = tokens_of_files(model, [HELD_OUT_TEXT], tokenizer)
    except InputError:
        return None, [
            "The increase in perplexity was not measured: the tokenizer makes too few tokens of "
            "the held-out text."
        ]
    with only_read():
        return cost_of(model, open_checkpoint(output), tokens, stages), []


@torch.inference_mode()
def cost_of(
    model: FloatModel, checkpoint: Checkpoint, tokens: torch.Tensor, stages: Stages
) -> Cost:
    """Both, of a whole vocabulary, read `tokens`, int64 [texts, T], a layer in memory at a time."""
    losses, divergence, same = [], 0.0, 0
    with stages("measure what it costs") as advance:
        rounded = LayerByLayer(checkpoint.config, Dequantized(_tables_once(checkpoint)))
        found = _hidden(rounded, tokens, lambda part: advance(part * 0.4))
        _read_output_by_rows(rounded, checkpoint)
        release_mapped()
        exact = LayerByLayer(model.config, model.tensors)
        wanted = _hidden(exact, tokens, lambda part: advance(0.4 + part * 0.4))
        targets = tokens[:, 1:].flatten()
        rows = max(1, _LOGITS_AT_ONCE // model.config.vocab_size)
        for at in range(0, len(targets), rows):
            part = slice(at, at + rows)
            want = exact.ends.logits(wanted[part]).log_softmax(-1)
            got = rounded.ends.logits(found[part]).log_softmax(-1)
            costs = [token_losses(logs, targets[part]) for logs in (want, got)]
            losses.append(torch.stack(costs).double())
            divergence += float(kl_divergence(want, got).sum())
            same += same_most_likely(want, got)
            advance(0.8 + 0.2 * min(1.0, (at + rows) / len(targets)))
    before, after = torch.cat(losses, 1)
    ratio, ratio_error = perplexity_ratio(after, before)
    return Cost(
        tokens=len(targets),
        perplexity=float(before.mean().exp()),
        perplexity_ratio=ratio,
        perplexity_ratio_error=ratio_error,
        kl=max(0.0, divergence / len(targets)),
        top1_agreement=same / len(targets),
    )


def _hidden(
    layers: LayerByLayer, tokens: torch.Tensor, advance: Callable[[float], None]
) -> torch.Tensor:
    """The last hidden states [N, dim] that each but the last token of a text is predicted from."""
    hidden = layers.hidden(tokens, advance)[:, :-1].flatten(0, 1)
    layers.ends.tok_embeddings = None  # frees its memory
    return hidden


class _OutputByRows(torch.nn.Module):
    """An output layer int8 [V, K] with its scales, some rows of which are in floating point."""

    def __init__(self, values: torch.Tensor, scales: torch.Tensor) -> None:
        super().__init__()
        self._parts = list(
            zip(values.split(_ROWS_AT_ONCE), scales.split(_ROWS_AT_ONCE), strict=True)
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The logits [N, V] of hidden states [N, K]."""
        logits = [hidden @ dequantized(part, scales.float()).T for part, scales in self._parts]
        return torch.cat(logits, -1)


def _read_output_by_rows(rounded: LayerByLayer, checkpoint: Checkpoint) -> None:
    """A large one would be in memory in floating point beside that of the model."""
    stored = checkpoint.tensors.stored
    values, scales = (stored.get(f"output.{part}") for part in ("weight", "scales"))
    if values is not None and scales is not None:
        rounded.ends.add_module("output", _OutputByRows(values.load(), scales.load()))


def _tables_once(checkpoint: Checkpoint) -> LazyTensors:
    """Its tensors, without an output layer that is the embedding."""
    tensors = checkpoint.tensors
    for part in ("scales", "weight"):
        one, two = (tensors.stored.get(f"{at}.{part}") for at in ("output", "tok_embeddings"))
        if one is None or two is None or (one.shape, one.dtype) != (two.shape, two.dtype):
            return tensors
        if not torch.equal(one.load(), two.load()):
            return tensors
    stored = tensors.stored.items()
    return LazyTensors({name: one for name, one in stored if not name.startswith("output.")})
