"""A checkpoint's tensors held against what its parameters ask for.

The names and shapes are those of `quatrain.backbone.tensor_shapes` and `vector_shapes`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.tensor_shapes import (
    embedding_shapes,
    linear_shapes,
    output_shapes,
    per_layer_shapes,
)
from quatrain.backbone.vector_shapes import vector_shapes
from quatrain.checkpoint.names_in_file import InFile
from quatrain.errors import InputError

EMBEDDING = "tok_embeddings"
OUTPUT = "output"
PER_LAYER = "per_layer.embeddings"  # of models that have an embedding for each layer

# Buffers that some files carry and every model computes for itself: frequencies, positions, and the
# causal mask of older attention; and what TransformerEngine keeps for itself. With what sees or
# hears (`hugging_face.multimodal`), which the notes name, all that may go unread.
IGNORED = re.compile(
    r"rope\.freqs|(?:rope\.)?freqs_cis|.*\.rotary_emb\.\w+|.*\.(?:attn|attention)\.masked_bias"
    r"|(?:.*\.)?position_ids|.*\._extra_state"
)

# A checkpoint's parameters are in params.json or config.json, a GGUF file's in itself.
_WHOSE_PARAMETERS = "the file is incomplete, or its parameters are another model's"
_LAYER = re.compile(r"layers\.(\d+)\.")


def float_shapes(config: BackboneConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of the layers and norms of a floating-point model, by name."""
    matrices = {f"{name}.weight": shape for name, shape in linear_shapes(config).items()}
    return matrices | vector_shapes(config)


def table_shapes(config: BackboneConfig) -> dict[str, list[tuple[int, int]]]:
    """The shapes that the weight of each table, an embedding or the output, may have, by module
    name."""
    tables = {EMBEDDING: embedding_shapes(config), OUTPUT: output_shapes(config)}
    return tables | ({PER_LAYER: per_layer_shapes(config)} if config.per_layer_dim else {})


def optional_tables(config: BackboneConfig) -> set[str]:
    """The tables that a file may lack: a tied output, and those the backbone does not apply."""
    return {OUTPUT} if config.apply_embedding else {EMBEDDING, OUTPUT}


def check_layer_count(config: BackboneConfig, names: Iterable[str], source: str) -> None:
    """Raise `InputError` where the number of layers in a file is not `config.n_layers`.

    Comes before anything that builds a list of `n_layers` entries, so that an absurd count
    costs nothing.
    """
    names = list(names)
    layers = {match[1] for match in map(_LAYER.match, names) if match}
    elsewhere = next((name for name in names if _LAYER.search(name)), None)
    if not layers and elsewhere is not None:
        raise InputError(
            f"{source}: has no layer of the model's own names (layers.0. and on), but {elsewhere} "
            "and the like: the model is a part of another one; save that part alone"
        )
    if len(layers) != config.n_layers:
        raise InputError(
            f"{source}: holds {len(layers)} layers, its parameters say n_layers is "
            f"{config.n_layers} (num_hidden_layers in a config.json, block_count in a GGUF file); "
            f"{_WHOSE_PARAMETERS}"
        )


def check_names(
    found: Iterable[str],
    required: Iterable[str],
    optional: Iterable[str],
    source: str,
    in_file: InFile,
) -> None:
    """Raise `InputError` naming what is missing from `found`, or is there and not known."""
    present = {name for name in found if not IGNORED.fullmatch(name)}
    missing = sorted(set(required) - present)
    if missing:
        raise InputError(f"{source}: {_listed(missing, in_file)} missing; {_WHOSE_PARAMETERS}")
    extra = sorted(present - set(required) - set(optional))
    if extra:
        raise InputError(
            f"{source}: {_listed(extra, in_file)} not known to this architecture; "
            "a backbone that ignored a tensor would compute something else. Where it serves "
            "training or speculation alone (a value head, MTP), save the model without it."
        )


def check_shapes(
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    source: str,
    in_file: InFile,
) -> None:
    """Raise `InputError` naming the first tensor of `expected` whose shape in `found` differs."""
    for name, shape in expected.items():
        _check_shape(found, name, [shape], source, in_file)


def check_tables(
    found: Mapping[str, tuple[int, ...]],
    config: BackboneConfig,
    source: str,
    in_file: InFile,
) -> None:
    """Raise `InputError` where a table in `found` has an impossible shape."""
    tables = {name: found.get(f"{name}.weight") for name in (EMBEDDING, OUTPUT)}
    stored = {tuple(shape) for shape in tables.values() if shape is not None}
    remedy = _WHOSE_PARAMETERS
    if len(stored) == 1 and len(shape := stored.pop()) == 2 and shape[1] == config.dim:
        remedy += f"; where the vocabulary was resized, state its vocab_size, {shape[0]}"
    for name, shapes in table_shapes(config).items():
        _check_shape(found, f"{name}.weight", shapes, source, in_file, remedy)


def _check_shape(
    found: Mapping[str, tuple[int, ...]],
    name: str,
    shapes: Sequence[tuple[int, ...]],
    source: str,
    in_file: InFile,
    remedy: str = _WHOSE_PARAMETERS,
) -> None:
    if name in found and tuple(found[name]) not in shapes:
        expected = " or ".join(str(list(shape)) for shape in shapes)
        raise InputError(
            f"{source}: {in_file(name)} has shape {list(found[name])}, expected {expected} "
            f"from the model's parameters; {remedy}"
        )


def _listed(names: list[str], in_file: InFile) -> str:
    shown = ", ".join(map(in_file, names[:4]))
    if len(names) > 4:
        shown += f" and {len(names) - 4} more"
    return f"tensor {shown} is" if len(names) == 1 else f"tensors {shown} are"
