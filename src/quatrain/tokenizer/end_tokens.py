"""Which tokens end a text, a turn or a message, and so end what a model writes.

| in | they are | read by |
|---|---|---|
| config.json, generation_config.json | `eos_token_id` | `quatrain.checkpoint.hugging_face.config` |
| a GGUF file | `tokenizer.ggml.*_token_id`, or known by their texts | `end_ids_of_gguf` |
| params.json | `eos_idx` | `token_ids`, `eos_idx_of` the other way |
| tokenizer_config.json | `eos_token`, `eos_token_id` | `end_ids_of_config` |
| a program | `get_eos_ids` | `end_ids` |
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from quatrain.tokenizer.gguf.vocabulary import CONTROL, USER_DEFINED

# What GGUF calls them: the key that states each, and the texts to know it by where a file does
# not, as those of many chat models do not. <|endoftext|> is not among them: it ends documents, and
# files of models that end turns with it state it as the end of text.
_GGUF: dict[str, tuple[str, ...]] = {
    "eos_token_id": (),
    "eot_token_id": (
        "<|eot_id|>",  # Llama 3
        "<|eot|>",  # Llama 4
        "<|im_end|>",  # Qwen, SmolLM
        "<|end|>",  # Phi
        "<end_of_turn>",  # Gemma
        "<|end_of_text|>",  # Granite; Llama's end of text
        "<end_of_utterance>",  # SmolVLM
    ),
    "eom_token_id": ("<|eom_id|>", "<|eom|>"),  # Llama 3 and 4
}


def end_ids(tokenizer_ids: list[int], metadata: Mapping[str, Any]) -> list[int]:
    """What ends a program's text: its tokenizer's ids where it has any, else those that the
    program's constant methods `metadata` name; maybe none."""
    return tokenizer_ids or token_ids(metadata.get("get_eos_ids"))


def token_ids(stated: Any) -> list[int]:
    """The ids in a field that holds one, several or none."""
    several = isinstance(stated, list | tuple)
    return [int(token) for token in (stated if several else [stated]) if token is not None]


def eos_idx_of(ids: list[int]) -> int | list[int]:
    """How params.json states `ids`, of which there is at least one."""
    return ids[0] if len(ids) == 1 else ids


def end_ids_of_config(config: Mapping[str, Any], eos_id: int | None) -> list[int]:
    """Those of a tokenizer_config.json: `eos_id`, its `eos_token`'s, and, in files that Quatrain
    wrote, all of `eos_token_id`. In order; what is no id is left out."""
    listed = config.get("eos_token_id")
    found = [eos_id, *(listed if isinstance(listed, list) else [listed])]
    return sorted({token for token in found if isinstance(token, int)})


def end_ids_of_gguf(metadata: Mapping[str, Any]) -> list[int]:
    """Those of a GGUF file, the end of text first."""
    found: list[int] = []
    for key, texts in _GGUF.items():
        stated = metadata.get(f"tokenizer.ggml.{key}")
        found += [stated] if isinstance(stated, int) else _special_tokens(metadata, texts)
    return list(dict.fromkeys(found))


def _special_tokens(metadata: Mapping[str, Any], texts: tuple[str, ...]) -> list[int]:
    """The control and user-defined tokens that are one of `texts`."""
    tokens, types = (metadata.get(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type"))
    if not (isinstance(tokens, list) and isinstance(types, np.ndarray)):
        return []
    special = np.flatnonzero(np.isin(types[: len(tokens)], (CONTROL, USER_DEFINED)))
    return [int(index) for index in special if tokens[index] in texts]
