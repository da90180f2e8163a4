"""Gemma 3n's text model in a GGUF file."""

from statistics import NormalDist

from quatrain.checkpoint.families.family import GgufReading, Params
from quatrain.checkpoint.families.gemma3n.hugging_face import MOST_STREAMS, cut_first
from quatrain.checkpoint.families.gemma4 import gguf as gemma4
from quatrain.checkpoint.gguf.blocks import GgufTensor
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.errors import InputError

_ENDS = {"proj": "projections", "unembd_proj": "unembed"}  # as the backbone calls them


def _params(metadata: GgufMetadata) -> Params:
    if metadata.number("altup.active_idx", 0):
        raise metadata.refuse("altup.active_idx", "expected 0; other values are not implemented")
    first = metadata.file.tensors.get("blk.0.laurel_l.weight")
    if first is None:
        raise InputError(f"{metadata.file.path}: tensor blk.0.laurel_l.weight is missing")
    return (
        gemma4.shared_params(metadata)
        | _sparsity(metadata)
        | {
            "hidden_dim": metadata.of_all_layers("feed_forward_length"),
            "layer_types": metadata.layer_types(5),
            "per_layer_dim": metadata.count("embedding_length_per_layer_input"),
            "altup_num_inputs": _streams(metadata),
            "laurel_rank": first.shape[0],
        }
    )


def _sparsity(metadata: GgufMetadata) -> Params:
    """The file has the deviations that a part of a normal distribution lies below: of 0 -inf."""
    key, layers = "activation_sparsity_scale", metadata.layer_count()
    below = [NormalDist().cdf(scale) for scale in metadata.numbers(key, layers)]
    cut = cut_first([float(f"{part:.7g}") for part in below], layers)
    if cut is None:
        raise metadata.refuse(key, "expected one number for the first layers, then -inf")
    return cut


def _streams(metadata: GgufMetadata) -> int:
    streams = metadata.count("altup.num_inputs")
    if not 2 <= streams <= MOST_STREAMS:
        raise metadata.refuse("altup.num_inputs", f"expected 2 to {MOST_STREAMS}")
    return streams


def _tensors(tensors: dict[str, GgufTensor], metadata: GgufMetadata) -> dict[str, GgufTensor]:
    """The linears at the ends, one for each stream but the first, apart."""
    others = _streams(metadata) - 1
    apart = dict(tensors)
    for module in _ENDS:
        name = f"altup_{module}.weight"
        tensor = apart.pop(name, None)
        if tensor is None:
            raise InputError(f"{metadata.file.path}: tensor {name} is missing")
        if len(tensor.shape) != 3 or tensor.shape[0] != others:
            expected = f"[{others}, dim, dim] for {others + 1} streams"
            raise InputError(
                f"{metadata.file.path}: {name} has shape {list(tensor.shape)}, expected {expected}"
            )
        rows = tensor.shape[1]
        for index in range(others):
            own = f"altup_{module}.{index}.weight"
            apart[own] = tensor.part(own, index * rows, tensor.shape[1:])
    return apart


GGUF = GgufReading(
    "gemma3n",
    half_split=True,
    params=_params,
    names={
        **gemma4.NAMES,
        "altup_router": "alt_up.router",
        "altup_router_norm": "alt_up.router_norm",
        "altup_predict_coef": "alt_up.predict",
        "altup_correct_coef": "alt_up.correct",
        "altup_correct_scale": "alt_up.scale",
        "laurel_l": "laurel.left",
        "laurel_r": "laurel.right",
        "laurel_post_norm": "laurel.norm",
        **{
            f"altup_{theirs}.{index}": f"alt_up.{ours}.{index}"
            for theirs, ours in _ENDS.items()
            for index in range(MOST_STREAMS - 1)
        },
    },
    tensors=_tensors,
    unused=gemma4.unused_keys,
)
