"""Programs of one operator, for what is looked for in a program and never computed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tests.support.programs import GraphMaker

from quatrain.program import Tensor, ValueList

Make = Callable[[Path], Path]  # writes a program into a folder


@dataclass(frozen=True)
class T:
    """A tensor of a program; a constant where `constant` says so, all elements of which are
    `fill`."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    storage: str = "texture3d"
    layout: str = "width_packed"
    constant: bool = False
    fill: float = 0

    def add_to(self, maker: GraphMaker) -> int:
        if self.constant:
            return maker.constant(np.full(self.shape, self.fill, self.dtype))
        tensor = Tensor(self.dtype, self.shape, storage=self.storage, layout=self.layout)
        return maker.add(tensor)


Argument = T | tuple | list  # a tensor, a fixed value (kind, value), a list of tensors


def call(name: str, *args: Argument) -> Make:
    """A program of one operator; its arguments, the result last."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        ids = []
        for arg in args:
            if isinstance(arg, T):
                ids.append(arg.add_to(maker))
            elif isinstance(arg, list):
                ids.append(maker.add(ValueList(tuple(tensor.add_to(maker) for tensor in arg))))
            else:
                ids.append(maker.plain(*arg))
        outs = [each for arg in args[-1:] for each in ids[-1:] if isinstance(arg, T)]
        maker.call(name, *ids)
        return maker.save(folder / "call.pte", outs)

    return make


NULL, FALSE, TRUE = ("null",), ("bool", False), ("bool", True)


def number(value: int) -> tuple:
    return ("int", value)


def ints(*values: int) -> tuple:
    return ("int_list", values)
