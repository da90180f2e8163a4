"""Mistral's tokenizer.json, many of which transformers converted with a wrong pattern of words.

`fix_mistral_regex` of tokenizer_config.json asks for the right one, which is Tekken's. Source:
`TokenizersBackend._patch_mistral_regex` in transformers 5.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, pre_tokenizers

from quatrain.json_files import read_object
from quatrain.tokenizer.files import TOKENIZER, sibling
from quatrain.tokenizer.gguf.byte_level import TEKKEN_WORDS

_FIX = "fix_mistral_regex"
_MODEL_TYPES = (None, "mistral", "mistral3", "voxtral", "ministral", "pixtral")
_SMALLEST = 100_000  # a vocabulary of Tekken has more tokens
_BEFORE_5 = re.compile(r"[0-4]\.|5\.0\.0\.?(?:dev|a|b|rc)")


def fix_mistral_words(model: tokenizers.Tokenizer, path: Path, config: Mapping[str, Any]) -> bool:
    """Give `model`, read from the tokenizer.json `path`, Mistral's own pattern of words where
    `config` (tokenizer_config.json) asks for it; returns whether it did."""
    asked = config.get(_FIX) is True and _was_saved_before_5(path)
    if not asked or not _is_of_tekken(model):
        return False
    words = pre_tokenizers.Split(Regex(TEKKEN_WORDS), "isolated")
    steps = model.pre_tokenizer
    if isinstance(steps, pre_tokenizers.Sequence):
        steps[0] = words
        model.pre_tokenizer = steps
        return True
    if isinstance(steps, pre_tokenizers.Metaspace):
        steps = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.pre_tokenizer = pre_tokenizers.Sequence([words, steps])
    return True


def has_wrong_mistral_words(path: Path, config: Mapping[str, Any]) -> bool:
    """Whether the tokenizer.json `path` may be one of those, and `config` asks for no other
    pattern. Raises `InputError` if a file is damaged."""
    asked = config.get(_FIX) is True
    if not path.name.endswith(TOKENIZER) or asked or not _was_saved_before_5(path):
        return False
    model = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8-sig"))
    return _is_of_tekken(model) and TEKKEN_WORDS not in _patterns(model)


def _was_saved_before_5(path: Path) -> bool:
    """Whether transformers before release 5 saved the Mistral whose tokenizer `path` is."""
    file = sibling(path, "config.json")
    if not file.is_file():
        return False
    fields = read_object(file)
    saved_by = fields.get("transformers_version")
    before_5 = not saved_by or _BEFORE_5.match(str(saved_by)) is not None
    return before_5 and fields.get("model_type") in _MODEL_TYPES


def _is_of_tekken(model: tokenizers.Tokenizer) -> bool:
    return model.get_vocab_size() > _SMALLEST and model.pre_tokenizer is not None


def _patterns(model: tokenizers.Tokenizer) -> list[str]:
    state = json.loads(model.pre_tokenizer.__getstate__())
    steps = state.get("pretokenizers", [state])
    return [str(step.get("pattern", {}).get("Regex")) for step in steps]
