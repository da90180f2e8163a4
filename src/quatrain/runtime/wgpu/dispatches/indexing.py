"""Where an element of one tensor lies in another, as WGSL."""

import math

from quatrain.errors import InputError

# The size of a dimension, and the step that it makes in another tensor; outermost first.
Axis = tuple[int, int]


def strides(shape: tuple[int, ...]) -> list[int]:
    """Elements between neighbours along each dimension of a contiguous tensor."""
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


def axes(shape: tuple[int, ...], dims: list[int] | range) -> list[Axis]:
    """The dimensions `dims` of a contiguous tensor of `shape`, in their order."""
    steps = strides(shape)
    return [(shape[dim], steps[dim]) for dim in dims]


def broadcast_axes(shape: tuple[int, ...], to: tuple[int, ...]) -> list[Axis]:
    """The dimensions of `to`, with the steps that they make in a tensor of `shape` that is
    broadcast to it. `InputError` if it cannot be."""
    padded = (1,) * (len(to) - len(shape)) + shape
    if len(padded) != len(to) or any(s not in (1, t) for s, t in zip(padded, to, strict=False)):
        raise InputError(f"a tensor of shape {list(shape)} does not broadcast to {list(to)}")
    steps = strides(padded)
    return [(t, step if s == t else 0) for t, s, step in zip(to, padded, steps, strict=True)]


def merged(given: list[Axis]) -> list[Axis]:
    """Fewest axes for the same places: those of one element go, and neighbours become one."""
    made: list[Axis] = []
    for size, step in given:
        if size == 1:
            continue
        if made and made[-1][1] == size * step:
            made[-1] = (made[-1][0] * size, step)
        else:
            made.append((size, step))
    return made


def place(given: list[Axis], i: str = "i") -> str:
    """WGSL of where element `i` of a tensor with these axes lies, a u32.

    The size of the outermost axis is not in it, so that one kernel serves any number of rows. A
    negative step counts down, as u32 do.
    """
    terms, inner, joined = [], 1, merged(given)
    for number, (size, step) in reversed(list(enumerate(joined))):
        if step:
            term = i if inner == 1 else f"{i} / {inner}u"
            term += f" % {size}u" if number else ""
            terms.append(term if step == 1 else f"{term} * {step % 2**32}u")
        inner *= size
    return " + ".join(reversed(terms)) or "0u"
