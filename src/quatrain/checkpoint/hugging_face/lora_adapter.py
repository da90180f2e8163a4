"""LoRA adapters as PEFT saves them, merged into the model that they were trained on.

A folder of adapter_config.json and adapter_model.safetensors (or .bin): for a linear F of weight
[N, K], `base_model.model.F.lora_A.weight` [r, K] and `base_model.model.F.lora_B.weight` [N, r]; for
an embedding [N, K], `lora_embedding_A` [r, N] and `lora_embedding_B` [K, r]; with `use_dora` beside
them `lora_magnitude_vector`, with `lora_bias` `lora_B.bias` [N]; for tokens that were trained alone
`token_adapter.trainable_tokens_delta`, their rows; and whole tensors that were trained, under their
names. `adapted_weight` says what becomes of a weight.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from quatrain.checkpoint.families.family import HuggingFaceReading
from quatrain.checkpoint.families.multimodal import Multimodal
from quatrain.checkpoint.files.adapter_folder import ADAPTER_CONFIG, adapter_files
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.files.tensor_file import read_tensors
from quatrain.checkpoint.hugging_face.fields import Fields, read_fields
from quatrain.checkpoint.hugging_face.multimodal import text_tensors
from quatrain.checkpoint.hugging_face.tensors.adapted_weight import (
    BIAS,
    MAGNITUDE,
    TOKENS,
    Adapted,
    adapted_bias,
    adapted_weight,
)
from quatrain.checkpoint.wrapped_names import without_wrappers
from quatrain.errors import InputError

_PREFIX = "base_model.model."
_PART = re.compile(
    r"(.+)\.(lora_A|lora_B|lora_B(?:\.default)?\.bias|lora_embedding_A|lora_embedding_B"
    rf"|lora_magnitude_vector|token_adapter\.{TOKENS})(?:\.default)?"
)
_SAVED = re.compile(r"\.(?:modules_to_save(?:\.default)?|base_layer|original_module)\.")
_EMBEDDING, _OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
# What PEFT can do besides, with the values under which it does nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "megatron_config": (None,),
    "target_parameters": (None, []),
    "layer_replication": (None, []),
    "alora_invocation_tokens": (None, []),
    "use_qalora": (None, False),
    "use_bdlora": (None,),
    "arrow_config": (None,),
    "kasa_config": (None,),
    "monteclora_config": (None,),
    # Others, such as PiSSA, take from the model's own weights what the matrices begin with.
    "init_lora_weights": (None, False, "gaussian", "eva", "orthogonal", True),
}
# Of those, what PEFT does not merge either.
_NEVER_MERGED = ("layer_replication", "alora_invocation_tokens", "use_qalora", "arrow_config")


def with_adapter(
    stored: LazyTensors,
    adapter: Path,
    whole: Multimodal | None,
    tied: bool,
    reading: HuggingFaceReading,
) -> tuple[LazyTensors, tuple[str, ...]]:
    """(the model's tensors, by Hugging Face name, with `adapter` merged in when they are read;
    notes on modules that it changes outside the text model, in a model of the kind `whole`, and on
    an output layer that it unties from the embedding). `tied`: whether the two are tied.
    `reading`: how the hub's files of the model differ from `stored`.

    Raises `InputError` if the adapter is not a LoRA adapter, or belongs to another model.
    """
    fields = read_fields(adapter / ADAPTER_CONFIG)
    if fields.get("peft_type") != "LORA":
        expected = "'LORA': other adapters are not supported; merge it with peft, if it can"
        raise fields.refusal("peft_type", expected)
    for name, neutral in _NEUTRAL.items():
        if fields.get(name) not in neutral:
            remedy = "merge it with peft"
            if name in _NEVER_MERGED:
                remedy = "peft does not merge such an adapter either, so train one without"
            raise fields.refusal(name, f"{neutral[-1]!r}; {remedy}")
    low_rank, trained, in_training, notes = _parts(adapter, whole, reading)
    stated = fields.get("trainable_token_indices")
    if stated and not any(TOKENS in parts for parts in low_rank.values()):
        raise InputError(
            f"{adapter}: trainable_token_indices lists tokens, but the adapter holds no rows "
            f"({TOKENS}) for them; download its files again"
        )
    if tied:
        apart, of_output = _output_apart(stored, low_rank, trained, fields)
        stored, notes = apart, notes + of_output
    merged = dict(stored.stored)
    for name, tensor in trained.items():
        if name != _OUTPUT:  # which may have been trained apart from the embedding that it was
            _require(stored, name, adapter)
            _require_shape(name, tensor, stored.stored[name], adapter)
        merged[name] = tensor
    # Of a tied output layer the rows of tokens that were trained are the embedding's, to which come
    # matrices of its own; or it has rows of its own.
    rows_of_both = tied and TOKENS in low_rank.get(_EMBEDDING.removesuffix(".weight"), {})
    for module in sorted(low_rank, key=lambda module: f"{module}.weight" == _OUTPUT):
        name, parts = f"{module}.weight", low_rank[module]
        _require(stored, name, adapter)
        if name == _OUTPUT and rows_of_both and TOKENS not in parts:
            merged[name] = merged[_EMBEDDING]
        adapted = Adapted(name, in_training[module], fields, adapter)
        merged[name] = adapted_weight(merged[name], parts, adapted)
        if BIAS in parts:
            bias = f"{module}.bias"
            merged[bias] = adapted_bias(merged.get(bias), parts, replace(adapted, name=bias))
    return LazyTensors(merged), notes


def _parts(
    adapter: Path, kind: Multimodal | None, reading: HuggingFaceReading
) -> tuple[
    dict[str, dict[str, StoredTensor]], dict[str, StoredTensor], dict[str, str], tuple[str, ...]
]:
    """(the low-rank matrices by module, the whole tensors by name, the name of each module in
    training, notes on modules outside the text model)."""
    file = adapter_files(adapter)[1]
    found = read_tensors(file)
    plain = {name: reading.called(without_wrappers(name).removeprefix(_PREFIX)) for name in found}
    named = {name: own.removesuffix(".weight") for name, own in plain.items()}
    low_rank: dict[str, dict[str, StoredTensor]] = {}
    whole: dict[str, str] = {}
    beside: dict[str, StoredTensor] = {}
    in_training: dict[str, str] = {}
    for name, short in named.items():
        match = _PART.fullmatch(short)
        if match is None and "lora_" in short:
            raise InputError(
                f"{file}: {name} does not belong to a LoRA adapter; merge it with peft"
            )
        if match is None:
            whole[name] = _SAVED.sub(".", plain[name])
            continue
        of_one, others = text_tensors(LazyTensors({f"{match[1]}.weight": found.stored[name]}), kind)
        beside |= others
        part = match[2].removeprefix("token_adapter.").replace(".default", "")
        for module in of_one:
            module = module.removesuffix(".weight")
            low_rank.setdefault(module, {})[part] = found.stored[name]
            in_training[module] = _in_training(name)
    of_text, others = text_tensors(found.renamed(whole), kind)
    of_text, beside = of_text.each(reading.rows_first), beside | others
    if not low_rank and not of_text:
        raise InputError(f"{file}: holds no tensor" + (" of the text model" if beside else ""))
    return low_rank, of_text.stored, in_training, _unmerged(beside)


def _in_training(name: str) -> str:
    """What the module of the adapter's tensor `name` was called where it was trained."""
    own = without_wrappers(name).removeprefix(_PREFIX).removesuffix(".weight")
    match = _PART.fullmatch(own)
    return match[1] if match else own


def _output_apart(
    stored: LazyTensors,
    low_rank: dict[str, dict[str, StoredTensor]],
    trained: dict[str, StoredTensor],
    fields: Fields,
) -> tuple[LazyTensors, tuple[str, ...]]:
    """(`stored` with a separate output layer, a copy of the base's embedding, if an adapter changes
    only one of the two: PEFT changes each by itself; a note if one of them is unchanged). If the
    adapter keeps the two tied (`ensure_weight_tying`), its copy of the output layer is removed,
    unless the two have separate magnitudes (`use_dora`)."""
    output = low_rank.get(_OUTPUT.removesuffix(".weight"), {})
    tokens_of_both = TOKENS in low_rank.get(_EMBEDDING.removesuffix(".weight"), {})
    # Tokens of an embedding that were trained alone are the output layer's too.
    apart = {module for module, parts in low_rank.items() if parts.keys() != {TOKENS}}
    changed = {*trained, *(f"{module}.weight" for module in apart), *([_OUTPUT] if output else ())}
    kept_tied = fields.flag("ensure_weight_tying") and MAGNITUDE not in output
    if kept_tied and _EMBEDDING in changed:
        low_rank.pop(_OUTPUT.removesuffix(".weight"), None)
        trained.pop(_OUTPUT, None)
        return stored.without([_OUTPUT]), ()
    if not changed & {_EMBEDDING, _OUTPUT} or _EMBEDDING not in stored:
        return stored, ()
    if tokens_of_both and (_OUTPUT in trained or _EMBEDDING in changed):
        expected = "null if the tied output layer is changed in other ways too; merge it with peft"
        raise fields.refusal("trainable_token_indices", expected)
    with_output = LazyTensors({_OUTPUT: stored.stored[_EMBEDDING], **stored.stored})
    if _OUTPUT in changed:
        return with_output, ()
    return with_output, (
        "The adapter changes the embedding, but not the output layer that is tied to it: the "
        "output layer keeps the base's weights, as in training with PEFT.",
    )


def _unmerged(beside: dict[str, StoredTensor]) -> tuple[str, ...]:
    if not beside:
        return ()
    count = f"{len(beside)} module{'s' if len(beside) > 1 else ''}"
    first = next(iter(beside)).removesuffix(".weight")
    return (
        f"The adapter also changes {count} outside the text model, which is not used: "
        f"{first}{' and the like' if len(beside) > 1 else ''}.",
    )


def _require(stored: LazyTensors, name: str, adapter: Path) -> None:
    if name not in stored:
        raise InputError(
            f"{adapter}: changes {name}, which the model in --base does not have; give the model "
            "that the adapter was trained on"
        )


def _require_shape(name: str, whole: StoredTensor, of_base: StoredTensor, adapter: Path) -> None:
    found, expected = list(whole.shape), list(of_base.shape)
    if found == expected:
        return
    remedy = "give the model that the adapter was trained on"
    if found[1:] == expected[1:]:
        remedy += f": one whose embedding was resized (`resize_token_embeddings({found[0]})`)"
    raise InputError(
        f"{adapter}: holds {name} of shape {found}, but in the model in --base it is {expected}; "
        f"{remedy}"
    )
