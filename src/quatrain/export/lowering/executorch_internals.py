"""All private APIs of ExecuTorch, torch and torchao that exporting uses.

Each part below says what it is for and what breaks without it. What it finds changed it refuses
with a `QuatrainError` that names the version found and the one expected; what it changes in
others' tables it puts back. Told of in modules of their own are the schemas inside the wheel
(`quatrain.executorch_wheel`), the operators that the eager layers call
(`quatrain.linear.private_operators`), the C++ runtime (`quatrain.runtime.executorch_bindings`), how
an XNNPACK delegate is copied and which keys are in its bytes
(`quatrain.export.xnnpack.copied_delegate` and `.delegate_keys`), and what compilers need not do
(`quatrain.export.lowering.compiler_shortcuts`, `.remembered_results` and
`quatrain.export.xnnpack.unused_patterns`).

To move to another release: docs/contributing/move-to-a-new-executorch-release.md.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from quatrain.executorch_wheel import changed
from quatrain.linear.private_operators import check_arguments, torchao_operators

try:
    # `custom_ops_lib` and `custom_ops` register `torch.ops.et_vk.*` and `torch.ops.llama.*`, which
    # a backbone's parts are traced as; ExecuTorch has no public name for them. `executorch.exir`
    # registers `quantized_decomposed::embedding_byte` and `embedding_4bit`, and `kernels.quantized`
    # the forms of that library's operators that programs call. Without them no backbone is traced.
    import executorch.backends.vulkan.custom_ops_lib
    import executorch.kernels.quantized  # noqa: F401
    from executorch.backends.vulkan.op_registry import vulkan_supported_ops
    from executorch.backends.vulkan.patterns import pattern_registry
    from executorch.exir import EdgeCompileConfig, ExecutorchProgramManager
    from executorch.exir._serialize._named_data_store import NamedDataStore as NamedDataStore
    from executorch.exir.dialects._ops import ops as exir_ops
    from executorch.exir.lowered_backend_module import LoweredBackendModule
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401
except ImportError as error:
    raise changed("executorch", "what exporting imports of it", error, "to find it all") from error


def _require(there: bool, package: str, what: str) -> None:
    """Raise `QuatrainError` unless `what`, which is private to `package`, is there."""
    if not there:
        raise changed(package, what, "nothing of the kind", "it as it was")


def edge_config() -> EdgeCompileConfig:
    """What both backends ask of ExecuTorch's first lowering; two of its private fields.

    The graphs are right by construction; the verifier would only re-interpret them. And with
    dim-order operators in place of `aten._to_copy`, the Vulkan partitioner would leave casts
    outside the delegate, which `export.kernels.check` refuses.
    """
    fields = {field.name for field in dataclasses.fields(EdgeCompileConfig)}
    for name in ("_check_ir_validity", "_skip_dim_order"):
        _require(name in fields, "executorch", f"{name} of EdgeCompileConfig")
    return EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True)


def _empty_result(x: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], packed.shape[0]))


# Operator of `torch.ops.et_vk` -> its arguments, and a function from them to empty results.
_VULKAN_OPERATORS: dict[str, tuple[str, Callable[..., Any]]] = {
    "linear_q4gsw": (
        "self weights weight_scales group_size bias",
        lambda x, packed, *_: _empty_result(x, packed),
    ),
    "linear_dq8ca_q4gsw": (
        "input input_scales input_zp weights weight_sums weight_scales group_size bias",
        lambda x, scale, zero, packed, *_: _empty_result(x, packed),
    ),
    "embedding_q4gsw": (
        "weight weight_scales group_size indices is_linear_weight",
        lambda packed, scales, group, tokens, *_: scales.new_empty(
            (*tokens.shape, packed.shape[1] * 2)
        ),
    ),
    "rms_norm": ("x weight eps", lambda x, *_: torch.empty_like(x)),
    "apply_rotary_emb": (
        "xq xk freqs_cos freqs_sin",
        lambda q, k, *_: (torch.empty_like(q), torch.empty_like(k)),
    ),
    "apply_rotary_emb_hf": (
        "xq xk freqs_cos freqs_sin start_pos",
        lambda q, k, *_: (torch.empty_like(q), torch.empty_like(k)),
    ),
}


@contextmanager
def shapes_of_vulkan_operators() -> Iterator[None]:
    """Give the operators in `torch.ops.et_vk` that a backbone is traced as functions that give
    the shapes of their results.

    ExecuTorch has none: tracing and every pass would run the operators' Python decompositions on
    symbolic shapes, a hundred times slower, with the same result.
    """
    for name, (arguments, _) in _VULKAN_OPERATORS.items():
        check_arguments("executorch", getattr(torch.ops.et_vk, name).default, arguments)
    shapes = {name: shape for name, (_, shape) in _VULKAN_OPERATORS.items()}
    check_arguments("executorch", torch.ops.llama.update_cache.default, "value cache start_pos")
    with (
        _implementations("et_vk", shapes, "Meta"),
        # ExecuTorch's function requires 4 dimensions; its Vulkan runtime only the last 3.
        _implementations("llama", {"update_cache": lambda value, *_: value.new_empty(1)}, "Meta"),
    ):
        yield


@contextmanager
def _implementations(
    namespace: str, functions: dict[str, Callable[..., Any]], key: str
) -> Iterator[None]:
    """Register `functions`, by operator, with torch's dispatcher under `key`, and take them back.

    Without `_scoped_library` they would stay. Without clearing `_dispatch_cache` what traces the
    operators later in this process would look for a function that is gone.
    """
    _require(hasattr(torch.library, "_scoped_library"), "torch", "torch.library._scoped_library")
    operators = [getattr(getattr(torch.ops, namespace), name).default for name in functions]
    caches = [getattr(operator, "_dispatch_cache", None) for operator in operators]
    _require(all(isinstance(c, dict) for c in caches), "torch", "OpOverload._dispatch_cache")
    try:
        with torch.library._scoped_library(namespace, "IMPL") as library:
            for name, function in functions.items():
                library.impl(name, function, key, allow_override=True)
            yield
    finally:
        for operator in operators:
            operator._dispatch_cache.clear()


@contextmanager
def partitioner_takes_packed_layers() -> Iterator[None]:
    """Let ExecuTorch's Vulkan partitioner take graphs whose linears are its own operators already.

    It registers those operators with the dtypes of a linear before it is fused: without other
    ones it would leave packed weights outside the delegate. The rest saves seconds a program.
    """
    with ExitStack() as stack:
        for context in (_any_dtypes, _fewer_patterns, _shapes_of_token_qparams):
            stack.enter_context(context())
        yield


@contextmanager
def _any_dtypes() -> Iterator[None]:
    """Let the partitioner's registry take packed linears of any dtypes."""
    edge: Any = exir_ops.edge
    taken = [edge.et_vk.linear_q4gsw.default, edge.et_vk.linear_dq8ca_q4gsw.default]
    any_dtypes = edge.torchao.choose_qparams_affine.default
    for operator in (*taken, any_dtypes):
        features = vulkan_supported_ops.get(operator)
        what = f"inputs_dtypes of {operator} in executorch.backends.vulkan.op_registry"
        _require(hasattr(features, "inputs_dtypes"), "executorch", what)
    before = {operator: vulkan_supported_ops[operator].inputs_dtypes for operator in taken}
    try:
        for operator in taken:
            vulkan_supported_ops[operator].inputs_dtypes = vulkan_supported_ops[
                any_dtypes
            ].inputs_dtypes
        yield
    finally:
        for operator, dtypes in before.items():
            vulkan_supported_ops[operator].inputs_dtypes = dtypes


# Rotary embeddings, whose examples the partitioner compiles before each partition, which takes
# seconds and finds nothing here; and attention to be fused with the update of its cache: one
# without an update is a layer's that reads another's cache.
_PATTERNS = ("export_llama_rope", "hf_rope", "causal_sdpa")


@contextmanager
def _fewer_patterns() -> Iterator[None]:
    """Take from the partitioner the patterns of `_PATTERNS`, which it would look for in vain."""
    patterns = pattern_registry.fusable_patterns
    for name in _PATTERNS:
        what = f"{name} of fusable_patterns in executorch.backends.vulkan.patterns"
        _require(name in patterns, "executorch", what)
    before = dict(patterns)
    try:
        for name in _PATTERNS:
            del patterns[name]
        yield
    finally:
        patterns.clear()
        patterns.update(before)


_SCALE_DTYPE = 6  # its place among the arguments of choose_qparams_affine after the activations


@contextmanager
def _shapes_of_token_qparams() -> Iterator[None]:
    """Let `torchao::choose_qparams_affine` of tokens x [..., K] answer with empty results [...].

    Each pass would ask the Python of torchao's quantization for their shapes, which takes seconds.
    torch does not accept a shape function for an operator that is defined by other operators, so
    the definition itself is replaced; no values are computed inside this context.
    """

    def empty(x: torch.Tensor, *rest: Any, **_: object) -> tuple[torch.Tensor, torch.Tensor]:
        scale_dtype, zero_point_dtype = rest[_SCALE_DTYPE : _SCALE_DTYPE + 2]
        rows = x.shape[:-1]
        return x.new_empty(rows, dtype=scale_dtype), x.new_empty(rows, dtype=zero_point_dtype)

    key = "CompositeImplicitAutograd"
    name = torchao_operators().choose_qparams_affine.default.name()
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key(name, key)
    _require(has_kernel, "torchao", f"the {key} kernel of {name}")
    with _implementations("torchao", {name.partition("::")[2]: empty}, key):
        yield


def lowered_parts(graph: nn.Module) -> list[LoweredBackendModule]:
    """The delegates of a lowered graph."""
    return [part for part in graph.modules() if isinstance(part, LoweredBackendModule)]


def forget_constants(manager: ExecutorchProgramManager) -> None:
    """Drop the bytes of the delegates' constants of a program that has been written.

    ExecuTorch's passes live as long as the process, and hold on to what they lowered last: an
    export in a process that has made one before would need the memory of both.
    """
    for part in lowered_parts(manager.exported_program().graph_module):
        stored = part.named_data_store_output
        if stored is not None:
            buffers = getattr(stored, "buffers", None)
            _require(isinstance(buffers, list), "executorch", "NamedDataStoreOutput.buffers")
            stored.buffers.clear()
