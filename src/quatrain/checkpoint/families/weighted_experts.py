"""Shared parts of mixtures whose experts' outputs are weighted: by default by the softmax of the
router's logits, with the weights of the chosen experts unchanged or normalized to sum to 1."""

from dataclasses import replace

from quatrain.checkpoint.families.family import Params
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.gguf.blocks import GgufTensor
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.tensors.experts import experts_apart
from quatrain.checkpoint.hugging_face.tensors.tensor_names import gated_names


def shared_names(module: str, down: str = "down_proj") -> dict[str, str]:
    """As `gated_names`, of an expert for every token."""
    return gated_names(module, "feed_forward.shared_expert", down)


GGUF_NAMES = {
    "ffn_gate_inp": "feed_forward.router",
    "ffn_gate_exps": "feed_forward.experts.w1",
    "ffn_down_exps": "feed_forward.experts.w2",
    "ffn_up_exps": "feed_forward.experts.w3",
}
GGUF_SHARED_NAMES = {
    "ffn_gate_shexp": "feed_forward.shared_expert.w1",
    "ffn_down_shexp": "feed_forward.shared_expert.w2",
    "ffn_up_shexp": "feed_forward.shared_expert.w3",
    "ffn_gate_inp_shexp": "feed_forward.shared_gate",
}
# Of a Hugging Face folder, in Meta's: an expert for every token, and its gate.
SHARED_NAMES = {
    "mlp.shared_expert_gate": "feed_forward.shared_gate",
    **shared_names("mlp.shared_expert"),
}
SHARED = {"use_shared_expert": True}
_GATED = SHARED | {"use_shared_expert_gate": True}
_WEIGHED = {"use_shared_expert": False, "router_scores": "softmax", "weigh_experts": "outputs"}


def names(module: str, router: str = "gate") -> dict[str, str]:
    """Of a Hugging Face folder, the names in Meta's of what is in a layer's `module`."""
    experts = gated_names(f"{module}.experts", "feed_forward.experts")
    return {f"{module}.{router}": "feed_forward.router", **experts}


def with_shared_gates(stored: LazyTensors) -> LazyTensors:
    """`stored` with gates of shared experts, [1, dim], as [dim]."""
    return stored.each(_flat_gate)


def _flat_gate(name: str, tensor: StoredTensor) -> StoredTensor:
    if not name.endswith(".shared_expert_gate.weight") or tensor.shape[:1] != (1,):
        return tensor
    return tensor.changed(lambda gate: gate[0], tensor.shape[1:])


def tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    """As `HuggingFaceReading.tensors`: each expert's matrices apart."""
    return experts_apart(stored, fields.source)


def hugging_face_params(fields: Fields, normalized: bool) -> Params:
    """The fields of params.json of a mixture in every layer. `normalized`: whether the scores of
    the picked experts sum to 1."""
    # Either name is read, and in transformers 5 written, for the other.
    stated = fields.get("num_local_experts") is not None
    return _WEIGHED | {
        # A mixture of one was tried on no runtime.
        "num_experts": fields.integer("num_local_experts" if stated else "num_experts", least=2),
        "num_activated_experts": fields.integer("num_experts_per_tok"),
        "norm_topk_prob": normalized,
    }


def shared_params(fields: Fields) -> Params:
    """The same fields for a mixture with a shared expert, which has a gate of its own."""
    return _GATED | {"shared_hidden_dim": fields.integer("shared_expert_intermediate_size")}


def gguf_params(
    metadata: GgufMetadata,
    normalized: bool,
    shared: bool = False,
    gated: bool = True,
    scaled: bool = False,
) -> Params:
    """The same of a GGUF file, with `shared` as `shared_params` too, whose gate it has if `gated`,
    and with a factor of the scores if `scaled`. llama.cpp fixes whether the scores sum to 1 for an
    architecture, or the file says it."""
    experts = metadata.count("expert_count")
    if experts == 1:
        raise metadata.refuse("expert_count", "expected 2 or more experts")
    of_shared: Params = {}
    others: dict[str, float] = {} if scaled else {"expert_weights_scale": 1.0}
    if shared:
        of_shared = (_GATED if gated else SHARED) | {
            "shared_hidden_dim": metadata.count(
                "expert_shared_feed_forward_length", metadata.get("feed_forward_length")
            )
        }
    else:
        others["expert_shared_feed_forward_length"] = 0
    for key, neutral in others.items():
        if metadata.number(key, neutral) not in (0, neutral):
            raise metadata.refuse(key, "which is not implemented for this family")
    own = metadata.number("expert_feed_forward_length", 0)
    return (
        _WEIGHED
        | {
            "num_experts": experts,
            "num_activated_experts": metadata.count("expert_used_count"),
            "moe_hidden_dim": own or None,
            "norm_topk_prob": normalized,
        }
        | of_shared
        | ({"routed_scaling_factor": _scale(metadata)} if scaled else {})
    )


def _scale(metadata: GgufMetadata) -> float:
    """The factor of the scores, of which 0 is none."""
    return metadata.decimal("expert_weights_scale", 1.0) or 1.0


def has_shared_gguf(metadata: GgufMetadata) -> bool:
    """Whether a GGUF file of an architecture that may have a shared expert has one."""
    metadata.get("expert_shared_count")  # which their width says, too
    return metadata.number("expert_shared_feed_forward_length", 0) > 0


def gguf_with_shared_gates(tensors: dict[str, GgufTensor]) -> dict[str, GgufTensor]:
    """As `with_shared_gates`, of a GGUF file."""
    return {
        name: replace(tensor, shape=tensor.shape[-1:])
        if name.endswith(".ffn_gate_inp_shexp.weight") and tensor.shape[:-1] == (1,)
        else tensor
        for name, tensor in tensors.items()
    }
