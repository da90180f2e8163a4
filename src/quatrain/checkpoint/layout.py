"""The names and shapes of a Llama-family model's tensors, in Meta's naming.

tok_embeddings.weight                       [vocab_size, dim]
layers.{i}.attention.wq.weight              [n_heads * head_dim, dim]
layers.{i}.attention.{wk,wv}.weight         [n_kv_heads * head_dim, dim]
layers.{i}.attention.wo.weight              [dim, n_heads * head_dim]
layers.{i}.attention.{wq,wk,wv}.bias        with attention_qkv_bias
layers.{i}.attention.{q,k}_norm_fn.weight   [head_dim], with use_qk_norm
layers.{i}.feed_forward.{w1,w3}.weight      [hidden_dim, dim] (gate, up)
layers.{i}.feed_forward.w2.weight           [dim, hidden_dim] (down)
layers.{i}.{attention_norm,ffn_norm}.weight [dim]
norm.weight                                 [dim]
output.weight                               [vocab_size, dim]; absent where it is tied
"""

import re
from collections.abc import Iterable, Mapping

from quatrain.backbone.config import BackboneConfig
from quatrain.errors import InputError

EMBEDDING = "tok_embeddings"
OUTPUT = "output"
GROUP_SIZES = (32, 64, 128, 256)  # of int4 weights that share a scale: those the kernels take

# Buffers that some files carry and every model computes for itself.
IGNORED = re.compile(r"rope\.freqs|.*\.rotary_emb\.inv_freq")

_LAYER = re.compile(r"layers\.(\d+)\.")


def linear_shapes(config: BackboneConfig) -> dict[str, tuple[int, int]]:
    """Each linear of the layers, by module name, with its [output, input] features."""
    queries = config.n_heads * config.head_dim
    keys = config.n_kv_heads * config.head_dim
    one_layer = {
        "attention.wq": (queries, config.dim),
        "attention.wk": (keys, config.dim),
        "attention.wv": (keys, config.dim),
        "attention.wo": (config.dim, queries),
        "feed_forward.w1": (config.hidden_dim, config.dim),
        "feed_forward.w2": (config.dim, config.hidden_dim),
        "feed_forward.w3": (config.hidden_dim, config.dim),
    }
    return {
        f"layers.{layer}.{name}": shape
        for layer in range(config.n_layers)
        for name, shape in one_layer.items()
    }


def vector_shapes(config: BackboneConfig) -> dict[str, tuple[int]]:
    """Each norm weight and bias, by tensor name: what stays in floating point."""
    one_layer = {"attention_norm.weight": config.dim, "ffn_norm.weight": config.dim}
    if config.attention_qkv_bias:
        one_layer["attention.wq.bias"] = config.n_heads * config.head_dim
        one_layer["attention.wk.bias"] = config.n_kv_heads * config.head_dim
        one_layer["attention.wv.bias"] = config.n_kv_heads * config.head_dim
    if config.use_qk_norm:
        one_layer["attention.q_norm_fn.weight"] = config.head_dim
        one_layer["attention.k_norm_fn.weight"] = config.head_dim
    shapes = {
        f"layers.{layer}.{name}": (size,)
        for layer in range(config.n_layers)
        for name, size in one_layer.items()
    }
    return shapes | {"norm.weight": (config.dim,)}


def float_shapes(config: BackboneConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of the floating-point model by name, the optional `output.weight` included."""
    matrices = linear_shapes(config) | {
        EMBEDDING: (config.vocab_size, config.dim),
        OUTPUT: (config.vocab_size, config.dim),
    }
    return {f"{name}.weight": shape for name, shape in matrices.items()} | vector_shapes(config)


def check_layer_count(config: BackboneConfig, names: Iterable[str], source: str) -> None:
    """Raise `InputError` where the number of layers in a file is not `config.n_layers`.

    Comes before anything that builds a list of `n_layers` entries, so that an absurd count
    costs nothing.
    """
    layers = {match[1] for match in map(_LAYER.match, names) if match}
    if len(layers) != config.n_layers:
        raise InputError(
            f"{source}: holds {len(layers)} layers, its parameters say n_layers is "
            f"{config.n_layers}; give the params.json that belongs to this file"
        )


def check_names(
    found: Iterable[str], required: Iterable[str], optional: Iterable[str], source: str
) -> None:
    """Raise `InputError` naming what is missing from `found`, or is there and not known."""
    present = {name for name in found if not IGNORED.fullmatch(name)}
    missing = sorted(set(required) - present)
    if missing:
        raise InputError(
            f"{source}: {_listed(missing)} missing; the file is incomplete, "
            "or its params.json belongs to another model"
        )
    extra = sorted(present - set(required) - set(optional))
    if extra:
        raise InputError(
            f"{source}: {_listed(extra)} not known to this architecture; "
            "a backbone that ignored a tensor would compute something else"
        )


def check_shapes(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], source: str
) -> None:
    """Raise `InputError` naming the first tensor of `expected` whose shape in `found` differs."""
    for name, shape in expected.items():
        if name in found and tuple(found[name]) != shape:
            raise InputError(
                f"{source}: {name} has shape {list(found[name])}, expected {list(shape)} "
                "from the model's parameters; give the params.json that belongs to this file"
            )


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    if len(names) > 4:
        shown += f" and {len(names) - 4} more"
    return f"tensor {shown} is" if len(names) == 1 else f"tensors {shown} are"
