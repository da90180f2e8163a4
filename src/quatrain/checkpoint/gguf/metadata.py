"""A GGUF model's own metadata, looked up with types checked."""

from typing import Any

import numpy as np

from quatrain.checkpoint.gguf.file import GgufFile
from quatrain.checkpoint.nth_layers import full_every
from quatrain.errors import InputError


class GgufMetadata:
    """Looks up `{architecture}.{key}` in `file`."""

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        self.architecture = str(file.metadata.get("general.architecture"))

    def get(self, key: str) -> Any:
        """The value of `key`, or None."""
        return self.file.metadata.get(f"{self.architecture}.{key}")

    def number(self, key: str, default: Any = None) -> Any:
        """The number `key`, or `default`. Raises `InputError` where neither is one."""
        value = self.get(key)
        if value is None:
            value = default
        if not isinstance(value, str) and hasattr(value, "__len__"):
            raise self.refuse(key, "expected one number: layers that differ in it are not read")
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise InputError(
                f"{self.file.path}: the metadata '{self.architecture}.{key}' is {value!r}, "
                "expected a number; the file is not a language model's, or is damaged"
            )
        return value

    def numbers(self, key: str, count: int) -> list[float]:
        """The `count` numbers of `key`, one for each layer, or as many times the one that it is."""
        value = self.get(key)
        if not isinstance(value, np.ndarray):
            return [self.number(key)] * count
        if len(value) != count:
            raise self.refuse(key, f"expected {count} numbers, one for each layer")
        return value.tolist()

    def decimal(self, key: str, default: Any = None) -> float:
        """The number `key` as it was meant: written as float32, 1e-05 is 9.999999747378752e-06."""
        return float(f"{self.number(key, default):.7g}")

    def count(self, key: str, default: Any = None) -> int:
        """The number `key`, or `default`: how many of something there are. Raises `InputError`
        where that is not one or more."""
        value = self.number(key, default)
        if not isinstance(value, int) or value < 1:
            raise self.refuse(key, "expected one or more; the file is damaged")
        return value

    def head_dim(self) -> int:
        """The channels of a head."""
        dim, heads = self.count("embedding_length"), self.count("attention.head_count")
        return self.count("attention.key_length", dim // heads)

    def window(self) -> int | None:
        """The sliding window, where it is shorter than the context."""
        window = self.number("attention.sliding_window", 0)
        return window if 0 < window < self.number("context_length", 2048) else None

    def window_of_all(self) -> dict[str, Any]:
        """The window, as a field of params.json, of a family in which every layer has one, or
        none does."""
        window = self.window()
        return {"sliding_window": window} if window else {}

    def full_every(self, interval: int) -> list[str]:
        """The layer_types of a model of which every `interval`-th layer sees all tokens, and all
        others have a window."""
        # Layers are counted in the file, too; an absurd count is refused when they are.
        return full_every(interval, min(self.count("block_count"), len(self.file.tensors)))

    def rotated_part(self) -> dict[str, Any]:
        """The part of each head that is rotated, as a field of params.json."""
        dim = self.head_dim()
        return {"partial_rotary_factor": self.number("rope.dimension_count", dim) / dim}

    def refuse(self, key: str, reason: str) -> InputError:
        """The error for a value of `key` that changes what the model computes."""
        return InputError(
            f"{self.file.path}: {self.architecture}.{key} is {self.get(key)!r}, {reason}"
        )
