"""The tensors that a checkpoint's parameters require, and checks against them.

The names and shapes are those of `quatrain.backbone.tensor_shapes` and `vector_shapes`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.tensor_shapes import (
    embedding_shapes,
    linear_shapes,
    output_shapes,
    per_layer_shapes,
)
from quatrain.backbone.vector_shapes import vector_shapes
from quatrain.checkpoint.files.lazy_tensors import StoredTensor
from quatrain.checkpoint.names_in_file import InFile
from quatrain.errors import InputError
from quatrain.short_lists import and_more

EMBEDDING = "tok_embeddings"
OUTPUT = "output"
PER_LAYER = "per_layer.embeddings"  # of models that have an embedding for each layer

# Buffers that some files carry and every model computes for itself: frequencies, positions, and the
# causal mask of older attention; and what TransformerEngine keeps for itself. Together with the
# encoders of multimodal models (`hugging_face.multimodal`), which the notes name, these are all
# tensors that may be ignored.
IGNORED = re.compile(
    r"(?:.*\.)?rope\.freqs|(?:rope\.)?freqs_cis|.*\.rotary_emb\.\w+|.*\.(?:attn|attention)\.masked_bias"
    r"|(?:.*\.)?position_ids|.*\._extra_state"
)

# A checkpoint's parameters are in params.json or config.json, a GGUF file's in itself.
_WHOSE_PARAMETERS = "the file is incomplete, or its parameters belong to another model"
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


@dataclass(frozen=True)
class StoredModel:
    """A model's tensors by Meta name; their headers are checked against `config`.

    The checks raise `InputError`, which begins with `source` and names a tensor by its name
    `in_file`.
    """

    stored: Mapping[str, StoredTensor]
    config: BackboneConfig
    source: str
    in_file: InFile = str

    def check_layer_count(self) -> None:
        """Refuse another number of layers than `config.n_layers`.

        Comes before anything that builds a list of `n_layers` entries, so that an absurd count
        costs nothing.
        """
        layers = {match[1] for match in map(_LAYER.match, self.stored) if match}
        elsewhere = next((name for name in self.stored if _LAYER.search(name)), None)
        if not layers and elsewhere is not None:
            raise InputError(
                f"{self.source}: has no layer named layers.0. and so on, but {elsewhere} and the "
                "like: the model is a part of another model; save only that part"
            )
        if len(layers) != self.config.n_layers:
            raise InputError(
                f"{self.source}: holds {len(layers)} layers, but its parameters say n_layers is "
                f"{self.config.n_layers} (num_hidden_layers in a config.json, block_count in a "
                f"GGUF file); {_WHOSE_PARAMETERS}"
            )

    def check_names(self, required: set[str], optional: set[str]) -> None:
        """Refuse a model where something is missing, or is there and not known."""
        present = {name for name in self.stored if not IGNORED.fullmatch(name)}
        missing, extra = sorted(required - present), sorted(present - required - optional)
        if missing:
            unknown = f", and {self._listed(extra)} not known to this architecture" if extra else ""
            raise InputError(
                f"{self.source}: {self._listed(missing)} missing{unknown}; {_WHOSE_PARAMETERS}"
            )
        if extra:
            raise InputError(
                f"{self.source}: {self._listed(extra)} not known to this architecture; a backbone "
                "that ignored a tensor would compute something else. If it is only for training or "
                "speculative decoding (a value head, MTP), save the model without it."
            )

    def check_shapes(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse a tensor of `expected` that is of another shape."""
        for name, shape in expected.items():
            self._check_shape(name, [shape])

    def check_tables(self) -> None:
        """Refuse a table of an impossible shape."""
        tables = (self.stored.get(f"{name}.weight") for name in (EMBEDDING, OUTPUT))
        shapes = {tuple(table.shape) for table in tables if table is not None}
        remedy = _WHOSE_PARAMETERS
        if len(shapes) == 1 and len(shape := shapes.pop()) == 2 and shape[1] == self.config.dim:
            remedy += f"; if the vocabulary was resized, set its vocab_size to {shape[0]}"
        for name, possible in table_shapes(self.config).items():
            self._check_shape(f"{name}.weight", possible, remedy)

    def _check_shape(
        self, name: str, shapes: Sequence[tuple[int, ...]], remedy: str = _WHOSE_PARAMETERS
    ) -> None:
        if name in self.stored and tuple(self.stored[name].shape) not in shapes:
            expected = " or ".join(str(list(shape)) for shape in shapes)
            raise InputError(
                f"{self.source}: {self.in_file(name)} has shape {list(self.stored[name].shape)}, "
                f"expected {expected} from the model's parameters; {remedy}"
            )

    def _listed(self, names: list[str]) -> str:
        shown = and_more([*map(self.in_file, names)], 4)
        return f"tensor {shown} is" if len(names) == 1 else f"tensors {shown} are"
