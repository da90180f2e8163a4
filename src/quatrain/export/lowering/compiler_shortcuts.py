"""What torch's compiler does in every lowering and nobody needs, left out.

The program is the same, and sooner there. Private to torch, as
`quatrain.export.lowering.executorch_internals` has it: what is found changed is refused with a
`QuatrainError`, and all is put back.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import torch.export.decomp_utils
import torch.export.exported_program
from torch.fx import GraphModule

from quatrain.executorch_wheel import changed


@contextmanager
def compiler_shortcuts() -> Iterator[None]:
    """Trace and lower within it; also a decorator."""
    with _operators_listed_once(), _graphs_compiled_when_called():
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
            stack.enter_context(replaced("torch", module, name, cache))
        yield


@contextmanager
def _graphs_compiled_when_called() -> Iterator[None]:
    """Make Python code of a graph when that is called.

    torch does so whenever a graph is changed, which every pass does, and hardly any graph is run by
    its code.
    """
    with replaced("torch", GraphModule, "recompile", _compiled_when_called):
        yield


def _compiled_when_called(recompile: Callable[[Any], Any]) -> Callable[[Any], None]:
    def postpone(graph_module: Any) -> None:
        def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
            recompile(self)  # replaces this function
            return self.forward(*args, **kwargs)

        type(graph_module).forward = forward  # each graph module has a class of its own
        graph_module._code = "not compiled yet"
        # How arguments are nested, which is read without a call.
        tree = getattr(graph_module.graph._codegen, "pytree_info", None)
        if tree is not None:
            graph_module._in_spec, graph_module._out_spec = tree.in_spec, tree.out_spec
        for child in graph_module.children():
            if isinstance(child, GraphModule):
                child.recompile()

    return postpone


@contextmanager
def replaced(
    package: str, holder: Any, name: str, other: Callable[[Any], Callable[..., Any]]
) -> Iterator[None]:
    """The function `name` of `holder`, a module or a class, replaced by what `other` makes of it.

    The name is as it is written in `package`, which is private to it.
    """
    function = getattr(holder, name, None)
    if not callable(function):
        raise changed(package, f"{name} of {holder.__name__}", function, "a function")
    setattr(holder, name, other(function))
    try:
        yield
    finally:
        setattr(holder, name, function)
