"""Layer by layer and role by role: how far the weights are from floating point, and how large what
each linear takes in is."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quatrain.backbone.layer_by_layer import LayerByLayer
from quatrain.backbone.state import stored_name
from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.files.memory_map import was_read
from quatrain.checkpoint.float_model import FloatModel
from quatrain.checkpoint.layout import EMBEDDING, OUTPUT
from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.errors import InputError
from quatrain.program.inspect.role_names import META_NAMES
from quatrain.quantize.cost import Dequantized
from quatrain.quantize.quantized_tensor import RoundingError, relative_rms
from quatrain.tokenizer import Tokenizer

_LENGTH = 512  # tokens that are read, at most
_WEIGHT = re.compile(r"layers\.(\d+)\.(.+)\.weight")
_ROLES = {name: role for role, name in META_NAMES.items()}
_TABLES = {"embedding": f"{EMBEDDING}.weight", "output": f"{OUTPUT}.weight"}
Cells = dict[str, list[float | None]]  # by role, a figure a layer; None if it has no such linear


def measure_layers(
    checkpoint: Path, reference: Path, tokenizer: Path, text: str, tokens: int,
    advance: Callable[[float], None] = lambda part: None,
) -> dict[str, Any]:  # fmt: skip
    """Compare the linears of `checkpoint` with the floating-point model `reference`, and read the
    first `tokens` of `text` with the latter.

    Gives plain data: "weight_error", the root of the sum of squared errors over that of squared
    weights, one figure a layer by role, None if the weights are rotated; "tables", the same for the
    embedding and the output layer; "lowest" and "highest", the range of the inputs by role;
    "tokens", the number of tokens read. `advance` is called with the completed fraction.

    Raises `InputError` if the checkpoint was not quantized from this model.
    """
    rounded, exact = open_checkpoint(checkpoint), open_float_model(reference)
    names = [name for name in rounded.tensors if f"{_module(name)}.scales" in rounded.tensors]
    # Rotated weights (SpinQuant) are others from the start, whatever rounding did.
    errors = {} if rounded.config.use_spin_quant else _errors(rounded, exact, names, advance)
    ids = Tokenizer.load(tokenizer).encode(text)
    ids = ids[: min(tokens, _LENGTH, exact.config.max_seq_len)]
    ranges = _ranges(exact, ids, {_module(name) for name in names}, advance)
    return {
        "tokens": len(ids),
        "weight_error": _cells(errors, exact.config.n_layers) if errors else None,
        "tables": {name: errors[key] for name, key in _TABLES.items() if key in errors},
        "lowest": _cells({name: low for name, (low, _) in ranges.items()}, exact.config.n_layers),
        "highest": _cells({name: up for name, (_, up) in ranges.items()}, exact.config.n_layers),
    }


def _errors(
    rounded: Checkpoint, exact: FloatModel, names: list[str], advance: Callable[[float], None]
) -> dict[str, float]:
    """The relative error of each weight in `names` that the model also has in the same shape."""
    found = {}
    values = Dequantized(rounded.tensors)
    for index, name in enumerate(names):
        advance(index / len(names) / 2)
        if name not in exact.tensors:
            continue
        want, got = exact.tensors[name].float(), values[name]
        if want.shape != got.shape:
            if not _WEIGHT.fullmatch(name):  # a table that keeps some of its tokens
                continue
            raise InputError(
                f"--reference {exact.source}: {name} is {list(want.shape)}, but {list(got.shape)} "
                "in the checkpoint; give the original model"
            )
        change, weight = (got - want).double(), want.double()
        error = RoundingError(float(change.square().sum()), float(weight.square().sum()))
        found[name] = relative_rms([error])
        was_read(want.nbytes + got.nbytes // 4)
    return found


@torch.inference_mode()
def _ranges(
    model: FloatModel, ids: list[int], linears: set[str], advance: Callable[[float], None]
) -> dict[str, tuple[float, float]]:
    """By the weight's name the lowest and highest value that goes into each of `linears`."""
    found: dict[str, tuple[float, float]] = {}

    def noting(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def note(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            low, high = found.get(name, (float("inf"), float("-inf")))
            x = given[0]
            if x.numel():  # an expert that no token is sent to
                found[name] = (min(low, float(x.min())), max(high, float(x.max())))

        return note

    layers = LayerByLayer(model.config, model.tensors)
    tokens = torch.tensor([ids])
    x = layers.ends.embed(tokens)
    own = layers.ends.own_inputs(tokens, x)
    for index in range(model.config.n_layers):
        block = layers.load(index, 1, len(ids))
        for name, module in block.named_modules():
            linear = stored_name(f"layers.{index}.{name}")
            if isinstance(module, nn.Linear) and linear in linears:
                module.register_forward_pre_hook(noting(f"{linear}.weight"))
        x = layers.run(block, x, own[index] if own else None)
        advance((1 + (index + 1) / model.config.n_layers) / 2)
    return found


def _cells(of_weight: dict[str, float], layers: int) -> Cells:
    """The figures of the layers' weights, by role."""
    cells: Cells = {}
    for name, figure in of_weight.items():
        if match := _WEIGHT.fullmatch(name):
            role = _ROLES.get(match[2], match[2].removeprefix("feed_forward."))
            cells.setdefault(role, [None] * layers)[int(match[1])] = figure
    usual = [*_ROLES.values()]
    others = [role for role in cells if role not in usual]
    return {role: cells[role] for role in [*usual, *others] if role in cells}


def _module(name: str) -> str:
    return name.removesuffix(".weight")
