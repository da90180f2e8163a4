"""The sizes of what operators give that move numbers and compute none.

Sources: as in `result_sizes`.
"""

import math

from quatrain.program.vulkan.sizes.sized_arguments import SizedArguments, Sizes, Unfit


def joined(args: SizedArguments) -> list[Sizes]:
    """Of tensors one behind the other."""
    tensors = args.all_sizes("tensors")
    made: Sizes = list(tensors[0])
    dim = args.dim(len(made))
    made[dim] = sum(sizes[dim] for sizes in tensors)
    return [made]


def split(args: SizedArguments) -> list[Sizes]:
    """Of each part."""
    x = args.sizes()
    dim = args.dim(len(x))
    if args.operator.kind == "aten.split_copy":
        part, whole = args.fixed("split_size"), x[dim]
        parts: Sizes = [min(part, whole - start) for start in range(0, whole, part)]
    else:
        parts = args.integers("split_sizes")
    return [[*x[:dim], part, *x[dim + 1 :]] for part in parts]


def sliced(args: SizedArguments) -> list[Sizes]:
    """Of places one step apart."""
    made: Sizes = list(args.sizes())
    dim = args.dim(len(made))
    whole, step = args.sizes()[dim], args.number("step", 1)
    start, end = args.number("start", 0), args.number("end", whole)
    if step.known is not None and step.known < 1:
        raise Unfit(f"takes steps of {step.known}")
    if None not in (start.known, end.known, step.known):
        made[dim] = len(range(whole)[start.known : end.known : step.known])
    elif start.beyond == end.beyond and step.known:
        made[dim] = -(-(end.more - start.more) // step.known)
    else:
        made[dim] = None
    return [made]


def selected(args: SizedArguments) -> list[Sizes]:
    """Of one place of a dimension."""
    made: Sizes = list(args.sizes())
    dim = args.dim(len(made))
    whole, place = args.sizes()[dim], args.number("index", 0).known
    if place is not None and not -whole <= place < whole:
        raise Unfit(f"takes place {place} of {whole}")
    del made[dim]
    return [made]


def chosen(args: SizedArguments) -> list[Sizes]:
    """Of places of a dimension, by their indices."""
    made: Sizes = list(args.sizes())
    made[args.dim(len(made))] = math.prod(args.sizes("index"))
    return [made]


def permuted(args: SizedArguments) -> list[Sizes]:
    """Of dimensions in another order."""
    x, order = args.sizes(), args.fixed("dims")
    if len(order) != len(x) or len(args.dims(len(x))) != len(x):
        raise Unfit(f"takes {len(x)} dimensions in the order {list(order)}")
    return [[x[dim] for dim in order]]


def transposed(args: SizedArguments) -> list[Sizes]:
    """Of two dimensions that are exchanged."""
    made: Sizes = list(args.sizes())
    if args.operator.kind == "aten.t_copy":
        return [made[::-1]]
    a, b = (args.dim(len(made), name) for name in ("dim0", "dim1"))
    made[a], made[b] = made[b], made[a]
    return [made]


def unsqueezed(args: SizedArguments) -> list[Sizes]:
    """Of a dimension more."""
    made: Sizes = list(args.sizes())
    made.insert(args.dim(len(made) + 1), 1)
    return [made]


def squeezed(args: SizedArguments) -> list[Sizes]:
    """Without dimensions of one place."""
    x = args.sizes()
    dims = args.dims(len(x))
    return [[size for dim, size in enumerate(x) if dim not in dims or size != 1]]


def expanded(args: SizedArguments) -> list[Sizes]:
    """Of places that are read several times."""
    asked = args.integers("size")
    x = [*(1 for _ in asked), *args.sizes()][-len(asked) :]
    return [[old if size == -1 else size for size, old in zip(asked, x, strict=True)]]


def repeated(args: SizedArguments) -> list[Sizes]:
    """The sizes of a tensor repeated that many times in each dimension."""
    times = args.integers("repeats")
    x = [*(1 for _ in times), *args.sizes()][-len(times) :]
    return [[None if n is None else n * size for n, size in zip(times, x, strict=True)]]


def viewed(args: SizedArguments) -> list[Sizes]:
    """Of the sizes that are asked for; one may follow from the others."""
    made: Sizes = [None if size == -1 else size for size in args.integers("size")]
    if made.count(None) == 1:
        others = math.prod(size for size in made if size is not None)
        made[made.index(None)] = math.prod(args.sizes()) // others
    return [made]


def unfolded(args: SizedArguments) -> list[Sizes]:
    """Of windows along a dimension."""
    made = args.sizes()
    dim, size = args.dim(len(made)), args.fixed("size")
    made[dim] = (made[dim] - size) // args.fixed("step") + 1
    return [[*made, size]]


def padded(args: SizedArguments) -> list[Sizes]:
    """Of places more at the ends of the last dimensions."""
    made, pad = args.sizes(), args.fixed("pad")
    for place, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), 1):
        made[-place] += before + after
    return [list(made)]


def shuffled(args: SizedArguments) -> list[Sizes]:
    """Of channels that become places of an image."""
    *batches, channels, height, width = args.sizes()
    by = args.fixed("upscale_factor")
    return [[*batches, channels // by**2, height * by, width * by]]
