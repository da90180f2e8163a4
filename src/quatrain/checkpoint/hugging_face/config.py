"""Converts a Hugging Face config.json to the fields of a params.json."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quatrain.checkpoint.families import hugging_face_reading, with_model_type
from quatrain.checkpoint.families.family import HuggingFaceReading
from quatrain.checkpoint.families.multimodal import Multimodal, multimodal_of
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.float_model import bias_params, usual_context
from quatrain.checkpoint.hugging_face.fields import Fields, read_fields
from quatrain.checkpoint.hugging_face.generation_settings import GENERATION_CONFIG
from quatrain.checkpoint.hugging_face.multimodal import left_out, text_fields, text_tensors
from quatrain.checkpoint.hugging_face.rope.older_rope_fields import refuse_two_values
from quatrain.checkpoint.hugging_face.tensors.biases import has_bias
from quatrain.checkpoint.naming_conventions import TRANSFORMERS, require_naming_convention
from quatrain.errors import InputError


@dataclass(frozen=True)
class Config:
    """What a config.json says; for a multimodal model, about its text model.

    Attributes:
        fields: Its fields, with its family's defaults for missing ones.
        reading: That family's.
        model_type: What the file calls the whole model.
        multimodal: The entry for a multimodal model, else None.
    """

    fields: Fields
    reading: HuggingFaceReading
    model_type: str
    multimodal: Multimodal | None

    def text_model(self, stored: LazyTensors) -> tuple[LazyTensors, tuple[str, ...]]:
        """(the tensors of `stored` that the text model uses, under the names of a text model by
        itself; notes on the others)."""
        tensors, others = text_tensors(stored, self.multimodal)
        tensors = tensors.renamed({name: self.reading.called(name) for name in tensors})
        tensors = tensors.each(self.reading.rows_first)
        require_naming_convention(TRANSFORMERS, tensors, Path(self.fields.source).parent)
        notes: tuple[str, ...] = ()
        if self.multimodal is not None:
            notes = left_out(self.model_type, self.reading.model_type, others)
        unused = self.reading.unused(tensors, self.fields)
        if unused:
            notes += (f"Not used, as in transformers: {', '.join(sorted(unused))}.",)
        return tensors.without(unused), (*notes, *self.reading.notes(self.fields))


def read_config(folder: Path) -> Config:
    """What `folder`'s config.json says. Raises `InputError` for a model that is not read."""
    fields = with_model_type(read_fields(folder / "config.json"))
    model_type, multimodal = str(fields.get("model_type")), multimodal_of(fields.get("model_type"))
    if multimodal is not None:
        fields = text_fields(fields, multimodal)
    else:
        refuse_two_values(fields)
    reading = hugging_face_reading(fields)
    if multimodal is not None:
        reading = replace(reading, tied=multimodal.tied)
        fields = Fields(reading.sizes, fields.source) | fields
    named = {name: fields[alias] for alias, name in reading.aliases.items() if alias in fields}
    context = {} if reading.context is None else {"max_position_embeddings": reading.context}
    fields = Fields({**reading.defaults, **context}, fields.source) | fields | named
    _check_attention(fields)
    if fields.get("per_layer_config") and not reading.by_layer:
        expected = "null: models whose layers differ in this way are not supported"
        raise fields.refusal("per_layer_config", expected)
    return Config(fields, reading, model_type, multimodal)


def _check_attention(fields: Fields) -> None:
    """Refuse text-embedding models of a family, whose tokens attend to later ones."""
    if "is_causal" in fields and not fields.flag("is_causal"):
        expected = (
            "true: tokens that attend to later ones are not implemented, and such a model does "
            "not generate text"
        )
        raise fields.refusal("is_causal", expected)


def params_of_config(fields: Fields, names: set[str]) -> dict[str, Any]:
    """The params of config.json's `fields`, for a model that holds the Meta tensors `names`.

    Raises `InputError` if the backbone does not implement one.
    """
    reading = hugging_face_reading(fields)
    own = reading.params(fields)
    params = {
        "dim": fields.integer("hidden_size"),
        "n_layers": own.get("n_layers") or fields.integer("num_hidden_layers"),
        "n_heads": own.get("n_heads") or fields.integer("num_attention_heads"),
        "n_kv_heads": fields.integer_or_none("num_key_value_heads"),
        "head_dim": fields.integer_or_none("head_dim"),
        "hidden_dim": own.get("hidden_dim") or fields.integer_of_layers("intermediate_size"),
        "vocab_size": fields.integer("vocab_size"),
        "norm_eps": reading.norm_eps or fields.number(_norm_eps(reading)),
        "act_fn": _activation(fields, reading),
        "use_hf_rope": True,
        **bias_params(names),
        **_stated_bias(fields, reading),
        "use_qk_norm": "layers.0.attention.q_norm_fn.weight" in names,
        "max_seq_len": usual_context(fields.integer("max_position_embeddings")),
    }
    return params | reading.rope(fields) | own


def _stated_bias(fields: Fields, reading: HuggingFaceReading) -> dict[str, bool]:
    """The biases that must be there. The bias of attention's output may be missing, as in Llamas
    converted from a Qwen: transformers takes it as 0."""
    named = {"attention_qkv_bias": "qkv", "feed_forward_bias": "feed_forward"}
    return {name: True for name, part in named.items() if has_bias(part, fields, reading)}


def _norm_eps(reading: HuggingFaceReading) -> str:
    names = ("layer_norm_eps", "norm_eps", "norm_epsilon", "layer_norm_epsilon")
    return next((name for name in names if name in reading.defaults), "rms_norm_eps")


def _activation(fields: Fields, reading: HuggingFaceReading) -> str:
    others = ("hidden_activation", "mlp_hidden_act", "activation_function")
    name = next((name for name in others if name in reading.defaults), "hidden_act")
    activation = fields.get(name)
    if not isinstance(activation, str | None) or activation not in reading.activations:
        raise fields.refusal(name, " or ".join(map(repr, reading.activations)))
    return reading.activations[activation]


def output_is_tied(
    fields: Fields, reading: HuggingFaceReading, names: set[str], folder: Path
) -> bool:
    """Whether the output layer is tied to the embedding, in a model with the tensors `names`.

    Raises `InputError` if it is not, and there is no output layer either.
    """
    has_output = any(name.startswith("lm_head.") for name in names)
    if fields.get("tie_word_embeddings") is None:
        tied = reading.tied and not has_output
    else:
        tied = fields.flag("tie_word_embeddings")
    if not tied and not has_output:
        raise _no_output(fields, names, folder)
    return tied


def _no_output(fields: Fields, names: set[str], folder: Path) -> InputError:
    """The error for a model without an output layer, for the likeliest reason."""
    missing = f"{folder}: tensor lm_head.weight is missing"
    elsewhere = next((name for name in names if name.endswith("lm_head.weight")), None)
    if elsewhere:
        return InputError(
            f"{missing}, but {elsewhere} is there: this model is a part of another one; save only "
            "that part, with its save_pretrained"
        )
    kinds = fields.get("architectures")
    if isinstance(kinds, list) and kinds and not re.search("LM|Generation", str(kinds[0])):
        return InputError(
            f"{missing}, and config.json's architectures is {str(kinds[0])[:80]!r}, which does "
            "not generate text; give a model whose class name ends in ForCausalLM"
        )
    return InputError(
        f"{missing}, and the output layer is not tied to the embedding (tie_word_embeddings is "
        "false, or is not set and false by default for this model_type); download the model's "
        "missing files, or correct its config.json"
    )


def end_tokens(folder: Path, fields: Fields) -> tuple[int | None, list[int]]:
    """The ids that begin and end a text: generation_config.json's, where it says. A null there
    says nothing, or no text would end."""
    generation = folder / GENERATION_CONFIG
    own = read_fields(generation) if generation.is_file() else fields
    bos_ids, eos_ids = (
        _tokens(own if own.get(name) is not None else fields, name)
        for name in ("bos_token_id", "eos_token_id")
    )
    return bos_ids[0] if bos_ids else None, eos_ids


def _tokens(fields: Fields, name: str) -> list[int]:
    """The field `name`, a token id, several, or null. Some files have -1 for none."""
    value = fields.get(name)
    tokens = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in tokens):
        raise fields.refusal(name, "a token id, a list of them, or null")
    return [token for token in tokens if token >= 0]
