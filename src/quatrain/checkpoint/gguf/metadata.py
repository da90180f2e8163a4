"""A GGUF model's own metadata, looked up with types checked."""

import math
import re
from typing import Any

import numpy as np

from quatrain.checkpoint.gguf.file import GgufFile
from quatrain.checkpoint.nth_layers import FULL, SLIDING, full_every
from quatrain.errors import InputError

# What llama.cpp reads as one number or as one for each layer.
_BY_LAYER = {"attention.head_count", "attention.head_count_kv", "feed_forward_length"}
# A GGUF file must state its context, without which llama.cpp refuses it.
_UNSTATED_CONTEXT = 2048
_PATTERN = "attention.sliding_window_pattern"
_BLOCK = re.compile(r"blk\.(\d+)\..+")


def is_count(number: float) -> bool:
    """Whether `number` is a whole one, 1 or more."""
    return 1 <= number < math.inf and not number % 1


class GgufMetadata:
    """Looks up `{architecture}.{key}` in `file`."""

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        self.architecture = str(file.metadata.get("general.architecture"))
        self._asked: set[str] = set()

    def get(self, key: str) -> Any:
        """The value of `key`, or None."""
        self._asked.add(key)
        return self.file.metadata.get(f"{self.architecture}.{key}")

    def is_asked(self, key: str) -> bool:
        """Whether `key` was looked up."""
        return key in self._asked

    def unasked(self) -> list[str]:
        """The keys that the file has and nothing looked up."""
        prefix = f"{self.architecture}."
        has = {key.removeprefix(prefix) for key in self.file.metadata if key.startswith(prefix)}
        return sorted(has - self._asked)

    def number(self, key: str, default: Any = None) -> Any:
        """The finite number `key`, or `default`. Raises `InputError` if neither is one."""
        value = self.get(key)
        if value is None:
            value = default
        if key in _BY_LAYER and self._same_in_all_layers(value):
            value = value[0].item()
        if not isinstance(value, str) and hasattr(value, "__len__"):
            raise self.refuse(
                key, "expected one number: values that differ between layers are not supported"
            )
        if (
            not isinstance(value, int | float)
            or isinstance(value, bool)
            or not math.isfinite(value)
        ):
            raise InputError(
                f"{self.file.path}: the metadata '{self.architecture}.{key}' is {value!r}, "
                "expected a number; the file is not a language model, or is damaged"
            )
        return value

    def text(self, key: str) -> str | None:
        """The text `key`, or None. Raises `InputError` for another value."""
        value = self.get(key)
        if not isinstance(value, str | None):
            raise self.refuse(key, "expected a text; the file is damaged")
        return value

    def _same_in_all_layers(self, value: Any) -> bool:
        """Whether it is one number for each layer, always the same."""
        several = isinstance(value, np.ndarray) and len(value) == self.get("block_count")
        return several and bool((value == value[:1]).all()) and len(value) > 0

    def numbers(self, key: str, count: int) -> list[float]:
        """The `count` numbers of `key`, one for each layer, or as many times the one that it is."""
        value = self.get(key)
        if not isinstance(value, np.ndarray):
            return [self.number(key)] * count
        if len(value) != count:
            raise self.refuse(key, f"expected {count} numbers, one for each layer")
        return value.tolist()

    def has_tensors(self, kind: str) -> bool:
        """Whether a layer has a tensor of that `kind`, such as attn_q.bias."""
        return any(name.endswith(f".{kind}") for name in self.file.tensors)

    def stated_layers(self) -> int:
        """The layers of the model, as the file says: behind them are those that predict further
        tokens."""
        return self.count("block_count") - self.some_layers("nextn_predict_layers")

    def predicts_further(self) -> set[str]:
        """The tensors of those layers."""
        behind = range(self.stated_layers(), self.count("block_count"))
        found = {name: _BLOCK.fullmatch(name) for name in self.file.tensors}
        return {name for name, match in found.items() if match and int(match[1]) in behind}

    def layer_count(self) -> int:
        """`stated_layers`, or the number of the file's tensors if that is smaller: the layers in
        the file are counted as well, and an absurd count is refused then."""
        return min(self.stated_layers(), len(self.file.tensors))

    def some_layers(self, key: str) -> int:
        """How many layers, but not all, the number `key` is; 0 if it is not there. Gemma 3n's first
        files say 10.0. Raises `InputError` for another."""
        count = self.number(key, 0)
        if not 0 <= count < self.count("block_count") or count % 1:
            raise self.refuse(key, "expected a number of layers, fewer than all")
        return int(count)

    def of_all_layers(self, key: str) -> int:
        """The number `key`, one or the same for each layer. Raises `InputError` for another."""
        first, *others = self.numbers(key, self.layer_count())
        if not is_count(first) or any(number != first for number in others):
            raise self.refuse(
                key, "expected one number for all layers; other values are not implemented"
            )
        return int(first)

    def attending_layers(self) -> tuple[int, list[bool]]:
        """(the KV heads of the layers that attend; whether each layer does: others have none)"""
        key = "attention.head_count_kv"
        by_layer = self.numbers(key, self.layer_count())
        heads, *others = {count for count in by_layer if count} or {0}
        if others or not is_count(heads):
            raise self.refuse(key, "expected one number, or 0 for layers without attention")
        return int(heads), [bool(count) for count in by_layer]

    def decimal(self, key: str, default: Any = None) -> float:
        """The decimal number that `key` was before it was stored as float32, which makes 1e-05
        9.999999747378752e-06."""
        return float(f"{self.number(key, default):.7g}")

    def count(self, key: str, default: Any = None) -> int:
        """The number `key`, or `default`: how many of something there are. Raises `InputError` if
        that is not one or more."""
        value = self.number(key, default)
        if not isinstance(value, int) or value < 1:
            raise self.refuse(key, "expected one or more; the file is damaged")
        return value

    def head_dim(self) -> int:
        """The channels of a head."""
        dim, heads = self.count("embedding_length"), self.count("attention.head_count")
        return self.count("attention.key_length", dim // heads)

    def fused_attention(self) -> dict[str, dict[str, int]]:
        """The rows of queries, keys and values in the matrix `attn_qkv`, by their names."""
        heads, width = self.count("attention.head_count"), self.head_dim()
        keys = self.count("attention.head_count_kv", heads) * width
        return {"attn_qkv": {"attn_q": heads * width, "attn_k": keys, "attn_v": keys}}

    def trained_context(self) -> int:
        """The longest context that the model was trained on, in tokens."""
        return self.count("context_length", _UNSTATED_CONTEXT)

    def unstated_context(self) -> tuple[str, ...]:
        """A note if the file has no context length."""
        if self.get("context_length") is not None:
            return ()
        return (
            f"The file has no {self.architecture}.context_length, so {_UNSTATED_CONTEXT} tokens "
            "are assumed. If the model was trained with another context, correct max_context_len "
            "in the params.json that is written.",
        )

    def window(self) -> int | None:
        """The sliding window, where it is shorter than the context."""
        window = self.number("attention.sliding_window", 0)
        return window if 0 < window < self.trained_context() else None

    def window_of_all(self) -> dict[str, Any]:
        """The window, as a field of params.json, of a family in which every layer has one, or
        none does."""
        window = self.window()
        return {"sliding_window": window} if window else {}

    def full_every(self, interval: int) -> list[str]:
        """The layer_types of a model in which every `interval`-th layer attends to all tokens, and
        all others have a window."""
        return full_every(interval, self.layer_count())

    def layer_types(self, interval: int) -> list[str]:
        """The layer_types that `attention.sliding_window_pattern` says: whether each layer has a
        window. Where the file has none of it, those of `full_every(interval)`."""
        pattern, layers = self.get(_PATTERN), self.layer_count()
        if pattern is None:
            return self.full_every(interval)
        if not isinstance(pattern, np.ndarray) or pattern.dtype != bool or len(pattern) != layers:
            raise self.refuse(_PATTERN, f"expected {layers} booleans, one for each layer")
        return [SLIDING if slides else FULL for slides in pattern]

    def layer_types_or_interval(self, interval: int) -> list[str]:
        """As `layer_types`, for a family whose pattern may also be a number n: every n-th layer
        attends to all tokens."""
        if isinstance(self.get(_PATTERN), np.ndarray):
            return self.layer_types(interval)
        return self.full_every(self.count(_PATTERN, interval))

    def windows_or_no_rope(self) -> dict[str, Any]:
        """The fields of params.json of a model in which every fourth layer attends to all tokens
        and has no rotary embedding. Raises `InputError` if the file says another pattern."""
        kinds = self.full_every(4)
        if self.layer_types_or_interval(4) != kinds:
            raise self.refuse(_PATTERN, "expected 4: every fourth layer has no rotary embedding")
        return {
            "sliding_window": self.count("attention.sliding_window"),
            "layer_types": kinds,
            "no_rope_layer_interval": 4,
        }

    def rotated_part(self) -> dict[str, Any]:
        """The part of each head that is rotated, as a field of params.json."""
        dim = self.head_dim()
        return {"partial_rotary_factor": self.number("rope.dimension_count", dim) / dim}

    def refuse(self, key: str, reason: str) -> InputError:
        """The error for a value of `key` that changes what the model computes."""
        return InputError(
            f"{self.file.path}: {self.architecture}.{key} is {self.get(key)!r}, {reason}"
        )
