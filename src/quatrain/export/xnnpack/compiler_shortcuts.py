"""What torch's and ExecuTorch's compilers do in every lowering for XNNPACK, left out.

The program is the same, and sooner there. Private to both packages, as
`quatrain.export.executorch_internals` has it: what is found changed is refused with a
`QuatrainError`, and all is put back.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import torch.export.decomp_utils
import torch.export.exported_program

from quatrain.executorch_wheel import changed

try:
    from executorch.backends.xnnpack.partition.graphs import bilinear_2d, sdpa
except ImportError as error:
    raise changed("executorch", "XNNPACK's pattern graphs", error, "to find them") from error


@contextmanager
def compiler_shortcuts() -> Iterator[None]:
    """Lower within it; also a decorator."""
    with ExitStack() as stack:
        stack.enter_context(_operators_listed_once())
        # Graphs of an interpolation and of torch's own attention, which XNNPACK's passes compile in
        # every process to look for them; no backbone's part has either.
        for module, name, none in (
            (bilinear_2d, "get_graphs_dict", dict),
            (sdpa, "get_graphs", list),
        ):
            stack.enter_context(_replaced("executorch", module, name, lambda _, none=none: none))
        yield


@contextmanager
def _operators_listed_once() -> Iterator[None]:
    """List torch's composite operators once.

    Every decomposition of a graph asks for them twice, and torch lists them anew, as somebody might
    have registered more between.
    """
    name = "_collect_all_valid_cia_ops"
    with ExitStack() as stack:
        for module in (torch.export.exported_program, torch.export.decomp_utils):
            stack.enter_context(_replaced("torch", module, name, cache))
        yield


@contextmanager
def _replaced(
    package: str, module: Any, name: str, other: Callable[[Any], Callable[..., Any]]
) -> Iterator[None]:
    """The function `name` of `module` replaced by what `other` makes of it."""
    function = getattr(module, name, None)
    if not callable(function):
        raise changed(package, f"{name} of {module.__name__}", function, "a function")
    setattr(module, name, other(function))
    try:
        yield
    finally:
        setattr(module, name, function)
