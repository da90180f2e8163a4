"""Skips work of torch's compiler that no lowering needs.

The program is the same, but lowering it takes less time. This module uses internals of torch in the
way of `quatrain.export.lowering.executorch_internals`: a changed internal raises `QuatrainError`,
and everything is restored at the end.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, NamedTuple

from torch.export import decomp_utils, exported_program
from torch.fx import GraphModule

from quatrain.executorch_wheel import changed

try:
    from torch._C import DispatchKey
    from torch._export import utils as export_utils
    from torch._subclasses.fake_impls import op_implementations_dict
    from torch.fx.traceback import NodeSource
except ImportError as error:
    raise changed("torch", "what its compiler does in vain", error, "to find it all") from error


@contextmanager
def compiler_shortcuts() -> Iterator[None]:
    """Trace and lower within it; also a decorator."""
    shortcuts = (
        _operators_listed_once, _kernels_made_once, _graphs_compiled_when_called,
        _origins_not_copied,
    )  # fmt: skip
    with ExitStack() as stack:
        for shortcut in shortcuts:
            stack.enter_context(shortcut())
        yield


@contextmanager
def _operators_listed_once() -> Iterator[None]:
    """List torch's composite operators once.

    Every decomposition of a graph asks for them twice, and each time torch lists them again in all
    namespaces, because more might have been registered in between.
    """
    name = "_collect_all_valid_cia_ops"
    with ExitStack() as stack:
        stack.enter_context(replaced("torch", export_utils, "_materialize_cpp_cia_ops", cache))
        for module in (exported_program, decomp_utils):
            stack.enter_context(replaced("torch", module, name, cache))
        yield


@contextmanager
def _kernels_made_once() -> Iterator[None]:
    """Make the kernels that a decomposition gives torch's composite operators once.

    Every decomposition of a graph creates some twenty for each of five hundred operators again.
    """
    name = "_override_composite_implicit_decomp"
    with replaced("torch", exported_program, name, _made_once):
        yield


class _Kernels(NamedTuple):
    """An operator's kernels in Python before and within a decomposition, and what gives the shapes
    of its results there."""

    before: dict[Any, Any]
    within: dict[Any, Any]
    shapes: Any


def _made_once(override: Callable[[Any], Any]) -> Callable[[Any], Any]:
    known: dict[Any, _Kernels] = {}
    shapes = op_implementations_dict

    @contextmanager
    def quick(decompositions: dict[Any, Any]) -> Iterator[None]:
        alike = {
            op: made
            for op, made in decompositions.items()
            if op in known and op.py_kernels == known[op].before and op not in shapes
        }
        others = {op: made for op, made in decompositions.items() if op not in alike}
        before = {op: op.py_kernels.copy() for op in others if op not in shapes}
        with override(others):
            for op, kernels in before.items():
                known[op] = _Kernels(kernels, op.py_kernels.copy(), shapes[op])
            for op, made in alike.items():
                own = {DispatchKey.CompositeImplicitAutograd: made}
                _replace(op, {**known[op].within, **own})
                shapes[op] = known[op].shapes
            try:
                yield
            finally:
                for op in alike:
                    _replace(op, known[op].before)
                    shapes.pop(op, None)

    return quick


def _replace(op: Any, kernels: dict[Any, Any]) -> None:
    op.py_kernels.clear()
    op.py_kernels.update(kernels)
    op._dispatch_cache.clear()


@contextmanager
def _graphs_compiled_when_called() -> Iterator[None]:
    """Generate the Python code of a graph only when it is called. torch generates it whenever a
    graph is changed, which every pass does, although few graphs are run by their code.
    """
    with replaced("torch", GraphModule, "recompile", _compiled_when_called):
        yield


@contextmanager
def _origins_not_copied() -> Iterator[None]:
    """Let what says from which a node was made be shared by nodes, which torch copies for each."""
    name = "__deepcopy__"
    if hasattr(NodeSource, name):
        raise changed("torch", f"{name} of NodeSource", "a function", "nothing")
    NodeSource.__deepcopy__ = lambda source, memo: source  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del NodeSource.__deepcopy__  # type: ignore[attr-defined]


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
    """Replace the function `name` of `holder`, a module or a class, by `other(function)` within the
    context.

    The function is private to `package`.
    """
    function = getattr(holder, name, None)
    if not callable(function):
        raise changed(package, f"{name} of {holder.__name__}", function, "a function")
    setattr(holder, name, other(function))
    try:
        yield
    finally:
        setattr(holder, name, function)
