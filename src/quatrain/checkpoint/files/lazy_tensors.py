"""Named tensors that are read from their file when they are used."""

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass

import torch

from quatrain.errors import InputError

# Some rows of a floating-point tensor [..., K], [n, K]: all dimensions but the last count as one.
RowsOf = Callable[[slice], torch.Tensor]


@dataclass(frozen=True)
class StoredTensor:
    """What a file's header says about one tensor, and how to read it.

    `shape` and `dtype` are those of the tensor that `load` returns; asking for them touches
    no data.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], torch.Tensor]

    def __str__(self) -> str:
        """As errors name it: "int8 [2, 4]"."""
        return f"{dtype_name(self.dtype)} {list(self.shape)}"

    def changed(
        self,
        change: Callable[[torch.Tensor], torch.Tensor],
        shape: tuple[int, ...] | None = None,
        dtype: torch.dtype | None = None,
    ) -> "StoredTensor":
        """The tensor, changed by `change` when it is loaded; with that `shape` and `dtype`, or the
        same as before."""
        return StoredTensor(
            self.shape if shape is None else shape,
            self.dtype if dtype is None else dtype,
            lambda: change(self.load()),
        )

    def rows(self, first: int, count: int) -> "StoredTensor":
        """`count` of its rows, from the `first` on."""
        return self.changed(lambda whole: whole[first : first + count], (count, *self.shape[1:]))


@dataclass(frozen=True)
class AsFloat32:
    """Loads what `original` does, converted: for a caller that wants the one or the other."""

    original: Callable[[], torch.Tensor]

    def __call__(self) -> torch.Tensor:
        return self.original().to(torch.float32)


@dataclass(frozen=True)
class MadeByRows:
    """Loads a tensor that is computed from its file, the whole of it or some rows."""

    shape: tuple[int, ...]
    rows: RowsOf

    def __call__(self) -> torch.Tensor:
        return self.rows(slice(None)).reshape(self.shape)


def dtype_name(dtype: torch.dtype) -> str:
    """As users know it: "int8"."""
    return str(dtype).removeprefix("torch.")


def put_once(
    tensors: dict[str, StoredTensor], name: str, tensor: StoredTensor, source: str
) -> None:
    """Add `tensor` to `tensors`. Raises `InputError` that begins with `source` where another
    `name` is there."""
    if name in tensors:
        raise InputError(
            f"{source}: the model has the tensor {name} twice, under two names, or whole and in "
            "parts; remove the one that does not belong to it"
        )
    tensors[name] = tensor


class LazyTensors(Mapping[str, torch.Tensor]):
    """A mapping of names to tensors that reads a tensor's bytes only when it is indexed.

    `stored` maps the same names to their shapes and dtypes. Nothing is kept: indexing a name
    twice loads it twice (a view into the mapped file where the format allows).
    """

    def __init__(self, stored: Mapping[str, StoredTensor]):
        self.stored = dict(stored)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.stored[name].load()

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)

    def __contains__(self, name: object) -> bool:
        return name in self.stored

    def unconverted(self, name: str) -> torch.Tensor:
        """The tensor in its file's own dtype: no copy of it, for work that goes block by block."""
        load = self.stored[name].load
        return load.original() if isinstance(load, AsFloat32) else load()

    def rows_of(self, name: str) -> RowsOf:
        """What gives some rows of the tensor `name`, in its file's own dtype: no copy of the whole,
        for work that goes block by block."""
        load = self.stored[name].load
        made = load.original if isinstance(load, AsFloat32) else load
        if isinstance(made, MadeByRows):
            return made.rows
        return self.unconverted(name).flatten(0, -2).__getitem__

    def renamed(self, names: Mapping[str, str]) -> "LazyTensors":
        """The tensors that `names` (old name -> new name) mentions, under their new names.

        Raises `InputError` if two get the same: one of them would go unread.
        """
        renamed: dict[str, str] = {}
        for old, new in names.items():
            if new in renamed:
                raise InputError(
                    f"the model has the tensor {new} twice, as {renamed[new]} and as {old}; remove "
                    "the one that does not belong to it"
                )
            renamed[new] = old
        return LazyTensors({new: self.stored[old] for new, old in renamed.items()})

    def without(self, names: Container[str]) -> "LazyTensors":
        """The tensors but those called one of `names`."""
        return LazyTensors({name: self.stored[name] for name in self.stored if name not in names})

    def each(self, change: Callable[[str, StoredTensor], StoredTensor]) -> "LazyTensors":
        """Each tensor, by its name, changed by `change`."""
        return LazyTensors({name: change(name, tensor) for name, tensor in self.stored.items()})

    def as_float32(self, source: str, in_file: Callable[[str], str] = str) -> "LazyTensors":
        """The same tensors, each converted to float32 when it is read.

        Raises `InputError`, naming `source` and the tensor's name `in_file`, if one holds integers,
        whose meaning is unknown here.
        """
        for name, tensor in self.stored.items():
            if not tensor.dtype.is_floating_point:
                raise InputError(
                    f"{source}: {in_file(name)} is {dtype_name(tensor.dtype)}, expected floating "
                    "point; quantize the original model"
                )
        return self.each(
            lambda _, tensor: StoredTensor(tensor.shape, torch.float32, AsFloat32(tensor.load))
        )
