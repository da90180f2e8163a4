"""Whether a graph says the sizes of its results that their operators give, if they give any.

A runtime allocates and computes as many numbers as are said, until a call of another length makes
it ask the operators: numbers beyond what one gives are anything.
"""

from collections.abc import Iterator

from quatrain.program.vulkan.graph import Tensor, VulkanGraph
from quatrain.program.vulkan.sizes.result_sizes import result_sizes
from quatrain.program.vulkan.sizes.sized_arguments import Sizes, Unfit


def misdeclared_sizes(graph: VulkanGraph) -> Iterator[str]:
    """Of each result whose sizes are others than its operator gives, where and what, in words; and
    of each operator that gives none, as of a dimension that is not there."""
    for index, given in result_sizes(graph):
        operator = graph.operators[index]
        if isinstance(given, Unfit):
            yield f"operator {index}, {operator.name}, {given}"
            continue
        results = [graph.values[value_id] for value_id in graph.outputs_of(operator)]
        for made, sizes in zip(results, given, strict=False):
            if isinstance(made, Tensor) and not _matches(made.shape, sizes):
                yield (
                    f"operator {index}, {operator.name}, gives {_text(sizes)}, and the size of its "
                    f"result is said to be {list(made.shape)}"
                )


def _matches(shape: tuple[int, ...], sizes: Sizes) -> bool:
    alike = (size in (None, said) for size, said in zip(sizes, shape, strict=False))
    return len(shape) == len(sizes) and all(alike)


def _text(sizes: Sizes) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in sizes)}]"
