"""Constants that a program expects in a `.ptd` file beside it.

Delegates find them by a key, methods by a tensor's name. Sources: `external_constants` of
ExecuTorch's `ExecutorchBackendConfig`, `external_constants_max_data_bytes` of its Vulkan
partitioner, `TensorDataLocation` of `program.fbs`, `export.foundation_weights_file` of its
`export_llm`.
"""

from quatrain.program.container import Program
from quatrain.program.file.flatbuffer import Record
from quatrain.program.loaded_values import is_external
from quatrain.program.xnnpack_delegate import xnnpack_constant_keys


def external_constants(program: Program) -> list[str]:
    """The names of those of `program`, each once."""
    of_delegates = [
        constant.key
        for graph in program.graphs
        for constant in graph.constants
        if constant.key is not None and not program.holds(constant)
    ]
    of_delegates += [
        key
        for delegate in program.delegates
        for key in xnnpack_constant_keys(delegate, str(program.path))
        if key not in program.named_data
    ]
    of_methods = [
        _name(value.val)
        for plan in program.root.execution_plan or ()
        for value in plan.values or ()
        if value.val is not None and is_external(value.val)
    ]
    return list(dict.fromkeys([*of_delegates, *of_methods]))


def _name(tensor: Record) -> str:
    return str(tensor.extra_tensor_info.fully_qualified_name)
