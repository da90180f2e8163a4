"""Rebuilds a tokenizer as transformers does for classes that ignore parts of tokenizer.json.

Some classes take out of the file the vocabulary, the merges and what is put around a text alone.
They prepare and cut a text as they always do, whatever the file says. Source: `TokenizersBackend`'s
`convert_to_native_format` and the classes' `__init__` in transformers 5.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from quatrain.errors import UnknownTokenizer
from quatrain.tokenizer.byte_ranks import cut_words
from quatrain.tokenizer.class_tokens import NAMED
from quatrain.tokenizer.files import tokenizer_class
from quatrain.tokenizer.gguf.byte_level import QWEN2_WORDS, QWEN3_5_WORDS
from quatrain.tokenizer.gguf.sentencepiece import SPACE, space_steps, spaces_back
from quatrain.tokenizer.named_tokens import finding_as_written, found_as_written, special_texts
from quatrain.tokenizer.tokenizer_json import is_tokenizers_error

_PARTS = ("normalizer", "pre_tokenizer", "decoder")
_FLAGS = ("fuse_unk", "byte_fallback", "ignore_merges")  # of the BPE, as those that follow
_MODEL = (*_FLAGS, "unk_token", "dropout", "continuing_subword_prefix", "end_of_word_suffix")
# Of `ByteLevel`: what changes no id, or no text.
_NO_MATTER = {"pre_tokenizer": {"trim_offsets"},
              "decoder": {"trim_offsets", "add_prefix_space", "use_regex"}}  # fmt: skip
_AROUND = "post_processor"  # what is put around a text, which two of the classes decide
_AS_IT_SAYS = (
    'set "tokenizer_class": "PreTrainedTokenizerFast" in tokenizer_config.json to use this '
    "file as it is"
)
# Classes that rebuild their tokenizer in a way that is not implemented; no supported model uses
# one.
_OTHERS = frozenset({
    "AlbertTokenizer", "BartTokenizer", "BarthezTokenizer", "BertTokenizer", "BigBirdTokenizer",
    "BlenderbotTokenizer", "CLIPTokenizer", "CamembertTokenizer", "ConvBertTokenizer",
    "DPRContextEncoderTokenizer", "DPRQuestionEncoderTokenizer", "DPRReaderTokenizer",
    "DebertaTokenizer", "DebertaV2Tokenizer", "DistilBertTokenizer", "EsmcTokenizer",
    "FNetTokenizer", "FunnelTokenizer", "HerbertTokenizer", "LEDTokenizer", "LasrTokenizer",
    "LayoutLMv2Tokenizer", "LayoutLMv3Tokenizer", "LayoutXLMTokenizer", "LukeTokenizer",
    "LxmertTokenizer", "MBart50Tokenizer", "MBartTokenizer", "MLukeTokenizer", "MPNetTokenizer",
    "MarkupLMTokenizer", "MobileBertTokenizer", "MvpTokenizer", "NllbTokenizer", "NougatTokenizer",
    "OpenAIGPTTokenizer", "ParakeetTokenizer", "PegasusTokenizer", "ReformerTokenizer",
    "RemBertTokenizer", "RoFormerTokenizer", "RobertaTokenizer", "SeamlessM4TTokenizer",
    "Siglip2Tokenizer", "SplinterTokenizer", "SqueezeBertTokenizer", "T5Tokenizer",
    "Tipsv2Tokenizer", "UdopTokenizer", "VideoPrismTokenizer", "WhisperTokenizer", "XGLMTokenizer",
    "XLMRobertaTokenizer", "XLNetTokenizer",
})  # fmt: skip


def build_as_class(
    model: tokenizers.Tokenizer, path: Path, config: dict[str, Any], added: dict[Any, Any]
) -> tuple[tokenizers.Tokenizer, bool, dict[str, Any], dict[Any, Any]]:
    """Returns `model`, read from the tokenizer.json `path`, with the normalizer and pre-tokenizer
    of its class in transformers; whether they differ from the file's; `config`
    (tokenizer_config.json) with the class's own tokens; and `added` (added_tokens.json) as the
    class searches them.

    Tokens of the file are left out if `config` lists the added ones. Raises `UnknownTokenizer` for
    an unknown class that rebuilds its tokenizer, and for a vocabulary without merges.
    """
    name = tokenizer_class(path, config)
    refuse_unknown(name, path, f"another tokenizer.json as --tokenizer, or {_AS_IT_SAYS}")
    build = _CLASSES.get(name)
    if build is None:
        return model, False, config, added
    if not isinstance(model.model, models.BPE):
        raise _not_bpe(model, path, name)
    before = _state(model)
    byte_level = "ByteLevel" in before
    if byte_level and build is _llama:  # transformers takes the file as it is
        return model, False, config, added
    if byte_level and build in (_gemma, _code_llama):
        raise UnknownTokenizer(
            f"{path}: is byte-level, which transformers' {name} cannot read; if it is the model's, "
            f"{_AS_IT_SAYS}"
        )
    prefix = model.model.continuing_subword_prefix
    for option in _MODEL:
        setattr(model.model, option, False if option in _FLAGS else None)
    if prefix:
        _refuse_merges_without(prefix, model, path, name)
    build(model, config)
    changed = _state(model) != before
    if "added_tokens_decoder" in config:
        model = _without_added(model)
    if build in (_llama, _code_llama):  # to which spaces become `▁` behind the added tokens
        if any(token.normalized for token in model.get_added_tokens_decoder().values()):
            model = finding_as_written(model)
        config, added = found_as_written(config), found_as_written(added)
    return model, changed, {**NAMED[name], **config}, added


def _not_bpe(model: tokenizers.Tokenizer, path: Path, name: str) -> UnknownTokenizer:
    stated = tokenizer_class(path, {"tokenizer_class": "PreTrainedTokenizerFast"})
    return UnknownTokenizer(
        f"{path}: is of type {type(model.model).__name__}, which transformers' {name} converts to "
        "BPE, which is not implemented; give a tokenizer.json of type BPE as --tokenizer"
        + ("" if stated == name else f", or {_AS_IT_SAYS}")
    )


def _refuse_merges_without(prefix: str, model: tokenizers.Tokenizer, path: Path, name: str) -> None:
    """Raise `UnknownTokenizer` if merges of `model`, whose tokens inside of words begin with
    `prefix`, give no token of the vocabulary without it."""
    try:
        tokenizers.Tokenizer.from_str(model.to_str())
    except BaseException as error:
        if not is_tokenizers_error(error):
            raise
        raise UnknownTokenizer(
            f"{path}: its continuing_subword_prefix is {prefix!r}, without which transformers' "
            f"{name} cannot read its merges; if it is the model's, {_AS_IT_SAYS}"
        ) from error


def refuse_unknown(name: str, path: Path, give: str) -> None:
    """Raise `UnknownTokenizer`, with the remedy `give`, if the class `name` of the tokenizer in
    `path` rebuilds it in a way that is not implemented."""
    if name in _OTHERS:
        raise UnknownTokenizer(
            f"{path}: its class, {name}, changes how texts are split, whatever the file says, in "
            f"a way that is not implemented; give {give}"
        )


def prepare_as(name: str, model: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    """Give `model` the normalizer and pre-tokenizer of the class `name` with these settings."""
    _CLASSES[name](model, config)


def _without_added(model: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    bare = tokenizers.Tokenizer(model.model)
    for part in (*_PARTS, _AROUND):
        setattr(bare, part, getattr(model, part))
    return bare


def is_built_anew(config: dict[str, Any]) -> bool:
    """Whether the class that a tokenizer_config.json's `config` states is one of those."""
    stated = config.get("tokenizer_class")
    return isinstance(stated, str) and stated.removesuffix("Fast") in (*_CLASSES, *_OTHERS)


def _qwen2(model: tokenizers.Tokenizer, config: dict[str, Any], words: str = QWEN2_WORDS) -> None:
    model.normalizer = normalizers.NFC()
    cut_words(model, words, config.get("add_prefix_space") is True)
    model.decoder = decoders.ByteLevel()


def _qwen3_5(model: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    _qwen2(model, config, QWEN3_5_WORDS)


def _gpt2(model: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    model.normalizer = None
    prefix = config.get("add_prefix_space") is True
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    model.decoder = decoders.ByteLevel()


def _gpt_neox(model: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    """With nothing around a text, whatever the file or `add_bos_token` says."""
    _gpt2(model, config)
    model.normalizer = normalizers.NFC()
    model.post_processor = processors.TemplateProcessing("$A", special_tokens=[])


def _cohere(model: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    _gpt2(model, config)
    model.normalizer = normalizers.NFC()
    digits = pre_tokenizers.Digits(individual_digits=True)
    model.pre_tokenizer = pre_tokenizers.Sequence([digits, model.pre_tokenizer])


def _gemma(model: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    _with_unknown(model, config)
    model.model.fuse_unk = model.model.byte_fallback = True
    model.normalizer = normalizers.Replace(" ", SPACE)
    model.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    model.decoder = spaces_back(strip=False)


def _with_unknown(model: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    unknown = special_texts(config).get("unk_token", "<unk>")
    model.model.unk_token = unknown if model.token_to_id(unknown) is not None else None


def _llama(model: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    """In the steps that a phone reads, unless the file has others already."""
    model.model.fuse_unk = model.model.byte_fallback = True
    prefix = config.get("add_prefix_space") is not False
    if isinstance(model.pre_tokenizer, pre_tokenizers.Metaspace):
        scheme = "always" if config.get("legacy") else "first"
        model.normalizer = None
        model.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, scheme if prefix else "never", False)
    else:
        model.normalizer = normalizers.Sequence(space_steps(prefix, leading_is_prefix=True))
        model.pre_tokenizer = None
    model.decoder = spaces_back(strip=prefix)


def _code_llama(model: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    """With what begins a text before it always. A text to fill in (`<FILL_ME>`) is not put in the
    order that transformers gives it."""
    _llama(model, {**config, "legacy": False})
    _with_unknown(model, config)
    model.decoder = spaces_back(strip=True)
    begin = special_texts({**NAMED["CodeLlamaTokenizer"], **config}).get("bos_token")
    index = None if begin is None else model.token_to_id(begin)
    if index is not None:
        model.post_processor = processors.TemplateProcessing(
            f"{begin} $A", special_tokens=[(begin, index)]
        )


def _state(model: tokenizers.Tokenizer) -> str:
    """What of it a class decides, and changes ids or texts."""
    parts = {name: _part(name, getattr(model, name)) for name in (*_PARTS, _AROUND)}
    return json.dumps([parts, [getattr(model.model, name) or None for name in _MODEL]])


def _part(name: str, part: Any) -> Any:
    if part is None:
        return None
    return _without_keys(json.loads(part.__getstate__()), _NO_MATTER.get(name, set()))


def _without_keys(state: Any, keys: set[str]) -> Any:
    if isinstance(state, list):
        return [_without_keys(each, keys) for each in state]
    if not isinstance(state, dict):
        return state
    left_out = keys if state.get("type") == "ByteLevel" else set()
    return {key: _without_keys(value, keys) for key, value in state.items() if key not in left_out}


_CLASSES: dict[str, Callable[[tokenizers.Tokenizer, dict[str, Any]], None]] = {
    "Qwen2Tokenizer": _qwen2, "GPT2Tokenizer": _gpt2, "GemmaTokenizer": _gemma,
    "LlamaTokenizer": _llama, "CodeLlamaTokenizer": _code_llama, "CohereTokenizer": _cohere,
    "GPTNeoXTokenizer": _gpt_neox, "Qwen3_5Tokenizer": _qwen3_5, "CodeGenTokenizer": _gpt2,
}  # fmt: skip
