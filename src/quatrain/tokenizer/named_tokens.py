"""Adds tokens that the files beside a tokenizer.json name, as transformers does.

| file | names |
|---|---|
| tokenizer_config.json | `added_tokens_decoder`, `bos_token` and so on, `extra_special_tokens` |
| special_tokens_map.json | `bos_token` and the like; read without `added_tokens_decoder` |
| added_tokens.json | texts and ids; read without `added_tokens_decoder` |
"""

import json
from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import AddedToken

from quatrain.errors import InputError

# In the order in which those that are new get their ids; others come after them.
_NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# Tokens without a name of their own, and what older files call them.
_EXTRA, _ADDITIONAL = "extra_special_tokens", "additional_special_tokens"
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def with_special_tokens_map(config: dict[str, Any], special: Mapping[str, Any]) -> dict[str, Any]:
    """A tokenizer_config.json's `config` with what special_tokens_map.json says, which counts."""
    if "added_tokens_decoder" in config:
        return config
    extra = config.get(_EXTRA)
    have_names = isinstance(extra, dict) and (extra or _ADDITIONAL not in config)
    if (_EXTRA in config or _ADDITIONAL in config) and not have_names:
        # Under one name, beside which the map's of the older name do not count.
        config = config | {_EXTRA: extra or config.get(_ADDITIONAL) or []}
        config.pop(_ADDITIONAL, None)
        special = {key: value for key, value in special.items() if key != _ADDITIONAL}
    merged = config | {
        # Marked as transformers marks a token in a config.
        key: {"__type": "AddedToken", **value, "special": True} if _is_token(value) else value
        for key, value in special.items()
    }
    if isinstance(special.get(_EXTRA), list):
        merged[_EXTRA] = [*(config.get(_EXTRA) or []), *special[_EXTRA]]
    return merged


def with_flags(
    added: Mapping[str, Any], config: dict[str, Any], special: Mapping[str, Any]
) -> dict[Any, Any]:
    """added_tokens.json's `added`, texts and ids, as an `added_tokens_decoder`. Special are those
    that a tokenizer_config.json's `config` or special_tokens_map.json's `special` names.

    transformers takes an object of a config for no token here, which it has not read yet; nor a
    token by a name that is a model's own, such as image_token.
    """
    named = {name: token for name, token in config.items() if isinstance(token, str)}
    named |= special
    usual = [token_text(named.get(f"{name}_token")) for name in _NAMES]
    extra = with_special_tokens_map(config, special).get(_EXTRA)
    listed = extra if isinstance(extra, list) else []
    others = [token_text(one) for one in listed if not (_is_token(one) and "__type" in one)]
    texts = {*usual, *others}
    flags = {text: {"special": text in texts, "normalized": text not in texts} for text in added}
    return {
        # What is no id is refused where the ids are read.
        str(index) if isinstance(index, list | dict) else index: {"content": text, **flags[text]}
        for text, index in added.items()
    }


def special_texts(config: Mapping[str, Any]) -> dict[str, str]:
    """The texts of the tokens that `config` has a name for: `bos_token`, `eos_token`, ..."""
    named = dict(config)
    if isinstance(config.get(_EXTRA), dict):
        named |= config[_EXTRA]
    names = dict.fromkeys((*(f"{name}_token" for name in _NAMES), *named))
    texts = {name: token_text(named.get(name)) for name in names if name.endswith("_token")}
    return {name: text for name, text in texts.items() if text is not None}


def token_text(token: Any) -> str | None:
    """A token in tokenizer_config.json is its text, or an object around it."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def add_named_tokens(
    model: tokenizers.Tokenizer, config: Mapping[str, Any], added: Mapping[str, Any], source: str
) -> None:
    """Have `model` know every token that `config` or added_tokens.json's `added` (`with_flags`)
    names. Those it knows already get the properties that `config` states.

    Raises `InputError`, naming `source`, if one is no token.
    """
    own = model.get_added_tokens_decoder()
    padding = {} if model.padding is None else {"pad_token": model.padding["pad_token"]}
    named = special_texts(padding | dict(config))
    if "added_tokens_decoder" in config:
        by_id = tokens_by_id(config["added_tokens_decoder"], source)
    else:
        by_id = tokens_by_id(added, source) | own
    tokens = [token for _, token in sorted(by_id.items())]
    known = {token.content for token in (*own.values(), *tokens)}
    stated = [
        *(config.get(key, text) for key, text in named.items()),
        *_unnamed_special_tokens(config),
    ]
    for number, one in enumerate(stated):
        # What is marked as a token in a config is special where it says so, or has a name.
        token = _token(one, source, special=not (_is_token(one) and "__type" in one))
        # Of several that differ in their properties alone the last counts.
        if token.content not in known and one not in stated[:number]:
            tokens.append(token)
    # A token that was special once stays so, whatever it is called later.
    special = {token.content for token in (*own.values(), *tokens) if token.special}
    for token in tokens:
        token.special = token.content in special or token.content in named.values()
    model.add_tokens(tokens)


def without_flags_of_named(model: tokenizers.Tokenizer, config: dict[str, Any]) -> dict[str, Any]:
    """`config` without `lstrip` and similar flags on its special tokens, which `model` now finds
    exactly as they are written."""
    texts = [*special_texts(config).values(), *map(token_text, _unnamed_special_tokens(config))]
    named = {text for text in texts if text is not None}
    model.add_tokens([AddedToken(text, special=True) for text in sorted(named)])
    decoder = config.get("added_tokens_decoder", {})
    plain = dict.fromkeys(_FLAGS[:-1], False)
    without = {
        index: {**_written_out(token), **plain} if token_text(token) in named else token
        for index, token in decoder.items()
    }
    return config | {"added_tokens_decoder": without} if decoder else config


def found_as_written(stated: Any) -> Any:
    """What a tokenizer's files state, each of its tokens looked for in a text as it came, not as it
    is once spaces became `▁`."""
    if isinstance(stated, list):
        return [found_as_written(each) for each in stated]
    if not isinstance(stated, dict):
        return stated
    inside = {key: found_as_written(value) for key, value in stated.items()}
    return inside | {"normalized": False} if token_text(inside) is not None else inside


def finding_as_written(model: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """`model`, with its added tokens found as written. It is rebuilt from its JSON, because a token
    that is added again keeps its old flags."""
    content = json.loads(model.to_str())
    content["added_tokens"] = found_as_written(content["added_tokens"])
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def tokens_by_id(decoder: Any, source: str) -> dict[int, AddedToken]:
    """The tokens of an `added_tokens_decoder`. Raises `InputError`, naming `source`, if it is
    none."""
    try:
        return {int(index): _token(token, source, False) for index, token in decoder.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{source}: its added tokens are not tokens by id: {error}") from error


def _unnamed_special_tokens(config: Mapping[str, Any]) -> list[Any]:
    """The special tokens without a name of their own; older files call them additional."""
    named = (config.get(name) for name in (_EXTRA, _ADDITIONAL))
    return next((tokens for tokens in named if tokens and isinstance(tokens, list)), [])


def _token(token: Any, source: str, special: bool = True) -> AddedToken:
    """`token`, a text or an object around it; `special`: where that does not say."""
    text = token_text(token)
    if text is None:
        raise InputError(
            f"{source}: {token!r} is not a token, expected a string, or an object with its content"
        )
    flags = {key: token[key] for key in _FLAGS if key in token} if _is_token(token) else {}
    if not all(isinstance(value, bool) for value in flags.values()):
        raise InputError(
            f"{source}: the token {text!r} has {flags}, expected true or false for each"
        )
    return AddedToken(text, **({"special": special} | flags))


def _written_out(token: Any) -> dict[str, Any]:
    return token if isinstance(token, dict) else {"content": token}


def _is_token(value: Any) -> bool:
    return isinstance(value, dict) and "content" in value
