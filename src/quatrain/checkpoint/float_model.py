"""A floating-point model with Meta's tensor names, whatever its file format."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.params.written import written_params
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.layout import (
    StoredModel,
    float_shapes,
    optional_tables,
    table_shapes,
)
from quatrain.checkpoint.names_in_file import InFile
from quatrain.tokenizer import Tokenizer
from quatrain.tokenizer.end_tokens import eos_idx_of

# The context that a params.json asks for unless its model was trained on less: a KV cache for
# all that a model can take is rarely wanted on a phone. `max_context_len` states the rest.
_USUAL_CONTEXT = 2048


@dataclass(frozen=True)
class Int4Blocks:
    """What a file holds as symmetric int4 in groups of `group_size`: called, it gives the
    integers, int8 [..., K] in [-8, 7], and scales, float32 [..., K / group size], which may be
    negative."""

    group_size: int
    read: Callable[[], tuple[torch.Tensor, torch.Tensor]]

    def __call__(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.read()


@dataclass(frozen=True)
class FloatModel:
    """A model before quantization.

    Attributes:
        source: The file or folder that was opened.
        tensors: float32 tensors by Meta name (see `quatrain.checkpoint.layout`), read when they are
            indexed; no `output.weight` if the output layer is tied to the embedding.
        config: The configuration of the backbone.
        params: The content for its params.json.
        write_tokenizer: Called with a folder, writes tokenizer.json and tokenizer_config.json there
            and returns the files, none if the model has no tokenizer.
        int4_blocks: The tensors that its file stores as symmetric int4 (such as GGUF's Q4_0).
        notes: Complete sentences about statements in its files that are not true.
    """

    source: Path
    tensors: LazyTensors
    config: BackboneConfig
    params: dict[str, Any]
    write_tokenizer: Callable[[Path], list[Path]]
    int4_blocks: Mapping[str, Int4Blocks] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def tokenizer(self) -> Tokenizer | None:
        """Its tokenizer, or None if it has none. Raises `InputError` if the tokenizer is
        damaged."""
        with tempfile.TemporaryDirectory(prefix="quatrain-") as folder:
            files = self.write_tokenizer(Path(folder))
            if not files:
                return None
            tokenizer = Tokenizer.load(files[0])
            tokenizer.source = str(self.source)  # what messages name; the folder is soon gone
            return tokenizer


def checked(model: FloatModel, in_file: InFile = str) -> FloatModel:
    """`model`, whose tensors are those of its config, each converted to float32 when it is read.
    Raises `InputError` if they do not fit, naming each by its name `in_file`."""
    source = str(model.source)
    stored = StoredModel(model.tensors.stored, model.config, source, in_file)
    stored.check_layer_count()
    expected = float_shapes(model.config)
    optional = {f"{name}.weight" for name in optional_tables(model.config)}
    tables = {f"{name}.weight" for name in table_shapes(model.config)}
    required = set(expected) | tables - optional
    if not required <= model.tensors.stored.keys():
        # Integers in place of weights say more than that the weights are missing.
        model.tensors.as_float32(source, in_file)
    stored.check_names(required, optional)
    stored.check_shapes(expected)
    stored.check_tables()
    return replace(model, tensors=model.tensors.as_float32(source, in_file))


def params_of(
    config: BackboneConfig, trained_context: int, bos_id: int | None, eos_ids: list[int]
) -> dict[str, Any]:
    """What a params.json says about `config`, with the tokens that begin and end a text."""
    params = written_params(config) | {"max_context_len": trained_context}
    if bos_id is not None:
        params["bos_idx"] = bos_id
    if eos_ids:
        params["eos_idx"] = eos_idx_of(eos_ids)
    return params


def bias_params(names: set[str]) -> dict[str, bool]:
    """The fields of params.json that say which linears have a bias, of a model that holds the
    tensors `names`: what its first layer has, all must have."""
    return {
        "attention_qkv_bias": "layers.0.attention.wq.bias" in names,
        "attention_output_bias": "layers.0.attention.wo.bias" in names,
        "feed_forward_bias": "layers.0.feed_forward.w2.bias" in names,
    }


def usual_context(trained_context: int) -> int:
    """The `max_seq_len` to write for a model trained on `trained_context` tokens."""
    return min(trained_context, _USUAL_CONTEXT)
