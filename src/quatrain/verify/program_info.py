"""The properties of a program that `verify` needs before it builds the eager backbone."""

from dataclasses import dataclass
from typing import Literal

from quatrain.errors import InputError
from quatrain.export.xnnpack.delegate_keys import SCALES_PREFIX
from quatrain.int4 import Scheme
from quatrain.program import Program
from quatrain.program.vulkan.linear_kernels import INT4_LINEARS
from quatrain.runtime.load import is_vulkan

Rounding = Literal["float32", "float16", "bfloat16 scales"]


@dataclass(frozen=True)
class ProgramInfo:
    """`scheme` is None if some of the int4 linears have the one and some the other.

    `rounding`: the type of activations, "float32" or "float16", or "bfloat16 scales": an XNNPACK
    program computes in float32 and holds the weights' scales in bfloat16. `context`: the tokens
    that the KV cache holds. `int8_kv_cache`: whether it holds them in int8.
    `attention_sink`: (sinks, window), which is all that it keeps of the context, if that.
    """

    scheme: Scheme | None
    rounding: Rounding
    context: int
    int8_kv_cache: bool = False
    attention_sink: tuple[int, int] | None = None

    @property
    def scheme_name(self) -> str:
        """The scheme for people; "mixed" if there are both."""
        return self.scheme or "mixed"


def program_info(program: Program) -> ProgramInfo:
    """The metadata of `program`; raises `InputError` if it has none.

    An XNNPACK program is 8da4w, since XNNPACK has no weight-only int4 linear; one of ours without
    any scales, whose linears all are dequantized (`--allow-fallback`), computes as weight-only.
    """
    stated = int(program.metadata.get("get_max_context_len", 0))
    if not is_vulkan(program):
        if not stated:
            raise InputError(f"{program.path}: lacks the constant method get_max_context_len")
        in_int8 = "llama.custom_quantized_sdpa.out" in program.calls_outside_delegates()
        sink = program.metadata.get("quatrain_attention_sink")
        quantized = any(key.startswith(SCALES_PREFIX) for key in program.named_data)
        dequantized = is_quatrains(program) and not quantized
        scheme = Scheme.WEIGHT_ONLY if dequantized else Scheme.DYNAMIC_INT8
        return ProgramInfo(scheme, "bfloat16 scales", stated, in_int8, sink and (sink[0], sink[1]))
    graph = program.vulkan
    schemes = {INT4_LINEARS[op.kind] for op in graph.operators if op.kind in INT4_LINEARS}
    if not schemes:
        raise InputError(f"{program.path}: has no int4 linear to verify")
    return ProgramInfo(
        scheme=schemes.pop() if len(schemes) == 1 else None,
        rounding="float16" if graph.tensor(graph.outputs[0]).dtype == "float16" else "float32",
        context=stated or _cache_length(program),
    )


def _cache_length(program: Program) -> int:
    graph = program.vulkan
    for operator in graph.operators:
        if operator.kind == "sdpa_with_kv_cache":
            return graph.tensor(operator.named_args["k_cache"]).shape[1]
    raise InputError(f"{program.path}: has no attention with a KV cache")


def is_quatrains(program: Program) -> bool:
    """Whether Quatrain exported `program`: it holds each tensor of its checkpoint as it is."""
    return any(name.startswith("quatrain_") for name in program.stated)
