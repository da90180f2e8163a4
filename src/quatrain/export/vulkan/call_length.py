"""The most tokens that one call of a Vulkan program can take."""

from torch import nn

from quatrain.backbone.config import BackboneConfig
from quatrain.errors import QuatrainError
from quatrain.export.vulkan.chunked_delta_rule import CHUNK
from quatrain.export.vulkan.masked_attention import PositionMask
from quatrain.program import Program

# The texels along any side of a texture that ExecuTorch's partitioner counts on in the third
# dimension everywhere (DEFAULT_TEXTURE_LIMITS of utils.py, ExecuTorch 1.5): where tokens lie.
LONGEST_SIDE = 2048
ROWS = 4  # of tokens that the runtime's attention computes together


def longest_call(config: BackboneConfig) -> int:
    """The tokens of the longest call: ExecuTorch's runner feeds a longer prompt in parts.

    The partitioner takes every tensor of up to `LONGEST_SIDE` for a texture and forbids longer
    calls in silence (`extents_are_valid`). Where attention is masked, tokens lie side by side once
    for each KV head, and once for each query head of one. Releases until 1.4 want a
    multiple of `ROWS` (the doctor's sdpa-uneven-calls).
    """
    layers = [config.layer(index) for index in range(config.n_layers)]
    by_parts = config.changes_scores
    masked = {layer.n_kv_heads for layer in layers if by_parts or layer.attention_window}
    beside = max((max(keys, config.n_heads // keys) for keys in masked), default=1)
    most = CHUNK if any(layer.recurs for layer in layers) else LONGEST_SIDE // beside // ROWS * ROWS
    return min(config.max_seq_len, config.prefill_chunk_size or most, most)


def check_call_length(program: Program, backbone: nn.Module) -> None:
    """Raise `QuatrainError` if `program` takes shorter calls than it says: narrowed by a tensor of
    masked attention that would leave a texture along a side that `longest_call` leaves out."""
    if not any(isinstance(part, PositionMask) for part in backbone.modules()):
        return
    graph, said = program.vulkan, int(program.metadata["get_max_seq_len"])
    taken = graph.tensor(graph.inputs[0]).shape[1]
    if taken < said:
        raise QuatrainError(
            f"the program takes {taken} tokens in a call, but its metadata says {said}: attention "
            "over so many keys does not fit the textures of this target. Use another --target or "
            "none, or a --max-seq-len up to the window."
        )
