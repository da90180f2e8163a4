"""Finds the state dict inside the object that a training script saved."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from quatrain.checkpoint.wrapped_names import without_wrappers
from quatrain.errors import InputError

# Where training scripts keep the state dict: nanoGPT, llama2.c; Lightning; DeepSpeed, FSDP. Under
# another name it counts where it is the only one.
_NESTED = ("model", "state_dict", "model_state_dict", "module")
_DEEPEST = 5  # dicts within dicts; a hostile file's may hold itself


def innermost(path: Path, content: dict[Any, Any]) -> dict[Any, Any]:
    """The state dict itself, of a training script's checkpoint, which holds it beside counters, an
    optimizer's state and the like."""
    for _ in range(_DEEPEST):
        nested = [name for name in _NESTED if isinstance(content.get(name), dict)]
        if not nested and not _has_weights(content):
            nested = [name for name, value in content.items() if _holds_weights(value)]
        elif nested:  # and a second time, as a moving average is
            nested += _same_again(content, nested)
        if not nested:
            return content
        if len(nested) > 1:
            raise InputError(
                f"{path}: holds {' and '.join(map(str, nested))}, expected one model; save only "
                "the model"
            )
        content = content[nested[0]]
    raise InputError(
        f"{path}: its dicts are nested more deeply than a checkpoint's; do not trust it"
    )


def _same_again(content: dict[Any, Any], found: list[Any]) -> list[Any]:
    """The entries of `content` that are or hold a copy of the state dict that was `found` first:
    one with the same names apart from wrappers, or its parameters in a list."""
    model = content[found[0]]
    if not _has_weights(model):
        return []
    names, shapes = _names_of(model), _shapes_of(model.values())

    def is_again(inner: dict[Any, Any] | list[Any]) -> bool:
        if isinstance(inner, list):
            return _shapes_of(inner) == shapes
        return _has_weights(inner) and _names_of(inner) == names

    return [
        name
        for name, value in content.items()
        if name not in found and "optim" not in str(name) and any(map(is_again, _within(value)))
    ]


def _names_of(value: dict[Any, Any]) -> set[str]:
    return {without_wrappers(str(key)) for key in value}


def _shapes_of(values: Iterable[Any]) -> list[tuple[int, ...]]:
    """Of the plain tensors, a tied one once."""
    plain = [value for value in values if type(value) in (torch.Tensor, torch.nn.Parameter)]
    return sorted({tensor.data_ptr(): tuple(tensor.shape) for tensor in plain}.values())


def _within(value: Any) -> Iterable[dict[Any, Any] | list[Any]]:
    """`value` and what it holds, as far as those are dicts or lists, each once."""
    found: dict[int, dict[Any, Any] | list[Any]] = {}
    coming = [value]
    while coming:
        one = coming.pop()
        if isinstance(one, dict | list) and id(one) not in found:
            found[id(one)] = one
            coming += one.values() if isinstance(one, dict) else ()
    return found.values()


def _has_weights(value: dict[Any, Any]) -> bool:
    return any(
        isinstance(name, str) and name.endswith(".weight") and isinstance(tensor, torch.Tensor)
        for name, tensor in value.items()
    )


def _holds_weights(value: Any, deepest: int = _DEEPEST) -> bool:
    """Whether `value` is a state dict, or holds one."""
    if not isinstance(value, dict) or not deepest:
        return False
    within = (_holds_weights(inner, deepest - 1) for inner in value.values())
    return _has_weights(value) or any(within)
