"""What running a program holds in memory."""

from quatrain.backbone.model import Backbone
from quatrain.export.options import ExportOptions
from quatrain.export.plan.sizes import cache_bytes, constants_of_linears


def memory_of(backbone: Backbone, options: ExportOptions, constants: int) -> tuple[int, int]:
    """(all, caches) in bytes, for a call of as many tokens as the context has.

    | | Vulkan, on the GPU | XNNPACK |
    |---|---|---|
    | weights | every constant | the linears', which XNNPACK packs anew; the file stays mapped |
    | keys and values | the whole context | the same |
    | activations | what ExecuTorch plans for a layer | the same |
    | attention | two tensors of heads x tokens x context, which it makes | in blocks |

    Source: `SDPA.cpp` of ExecuTorch's Vulkan runtime for attention; the memory plan of exported
    programs for activations, which is exact for a plain Llama.
    """
    config = backbone.config
    itemsize = 2 if options.activation_dtype == "fp16" else 4
    caches = cache_bytes(backbone, itemsize)
    context = config.max_seq_len
    queries, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    widest = max(config.hidden_dim, config.expert_dim, queries)
    activations = context * itemsize * (3 * widest + 2 * config.dim + config.head_dim)
    if options.backend == "xnnpack":
        linears = sum(constants_of_linears(backbone).values())
        return linears + caches + activations, caches
    activations += context * itemsize * keys
    attention = 2 * config.n_heads * context * context * itemsize
    return constants + caches + activations + attention, caches
