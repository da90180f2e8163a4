"""The tokens that end a text, a turn or a message.

All that a model's files state count. They are put together where its tokenizer is read or written
(`Tokenizer.eos_ids`), go from there into params.json and into the program, and what the program
states is what ends a text, on a phone and here.

| in | they are | read by |
|---|---|---|
| config.json, generation_config.json | `eos_token_id` | `quatrain.checkpoint.hugging_face.config` |
| a GGUF file | `tokenizer.ggml.*_token_id`, or known by their texts | `end_ids_of_gguf` |
| params.json | `eos_idx` | `token_ids`, `eos_idx_of` the other way |
| tokenizer_config.json | `eos_token`, `eos_token_id` | `end_ids_of_config` |
| a chat template | the token that it puts behind an answer | `turn_end` |
| a program | `get_eos_ids` | `end_ids` |
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from tokenizers import AddedToken

from quatrain.errors import InputError
from quatrain.tokenizer.chat import render
from quatrain.tokenizer.gguf.vocabulary import CONTROL, USER_DEFINED

# What GGUF calls them: the key that states each, and the texts to know it by if a file does not, as
# those of many chat models do not. <|endoftext|> is not among them: it ends documents, and files of
# models that end turns with it state it as the end of text.
_GGUF: dict[str, tuple[str, ...]] = {
    "eos_token_id": (),
    "eot_token_id": (
        "<|eot_id|>",  # Llama 3
        "<|eot|>",  # Llama 4
        "<|im_end|>",  # Qwen, SmolLM
        "<|end|>",  # Phi
        "<end_of_turn>",  # Gemma
        "<turn|>",  # Gemma 4
        "<|end_of_text|>",  # Granite; Llama's end of text
        "<end_of_utterance>",  # SmolVLM
    ),
    "eom_token_id": ("<|eom_id|>", "<|eom|>"),  # Llama 3 and 4
}


# A placeholder for an answer when a chat template is examined.
_ANSWER = "quatrain"


def end_ids(tokenizer_ids: list[int], metadata: Mapping[str, Any]) -> list[int]:
    """What ends a program's text: what its constant methods `metadata` name, as on a phone, or
    else its tokenizer's ids; maybe none."""
    return token_ids(metadata.get("get_eos_ids")) or tokenizer_ids


def turn_end(
    template: str, variables: Mapping[str, Any], added: Mapping[int, AddedToken]
) -> list[int]:
    """The one of the tokens that were `added` that `template` puts right behind an answer at the
    end of a conversation, or else the special one that it puts there before the next question; none
    if it puts something else there, or cannot be rendered.

    `variables`: as in `render`.
    """
    question = {"role": "user", "content": "?"}
    messages = [question, {"role": "assistant", "content": _ANSWER}]
    ids = {token.content: index for index, token in added.items() if token.content}
    # What begins a question may be written in an answer too, such as ###, unless it is special.
    special = [token.content for token in added.values() if token.special]
    for more, known in (([], ids), ([question], special)):
        try:
            text = render(template, messages + more, variables, "", add_generation_prompt=False)
        except InputError:
            return []  # it says why where a chat is asked for
        _, found, behind = text.rpartition(_ANSWER)
        behind = behind.lstrip()
        ending = [token for token in known if token and behind.startswith(token)]
        if found and ending:
            return [ids[max(ending, key=len)]]
    return []


def token_ids(stated: Any) -> list[int]:
    """The ids in a field that holds one, several or none; what is no id is left out."""
    several = stated if isinstance(stated, list | tuple) else [stated]
    return [int(token) for token in several if isinstance(token, int) or _is_whole_float(token)]


def _is_whole_float(token: Any) -> bool:
    return isinstance(token, float) and token.is_integer()


def eos_idx_of(ids: list[int]) -> int | list[int]:
    """How params.json states `ids`, of which there is at least one."""
    return ids[0] if len(ids) == 1 else ids


def end_ids_of_config(config: Mapping[str, Any], eos_id: int | None) -> list[int]:
    """Those of a tokenizer_config.json: `eos_id`, its `eos_token`'s, and, in files that Quatrain
    wrote, all of `eos_token_id`. In order; what is no id is left out."""
    return sorted({*token_ids(eos_id), *token_ids(config.get("eos_token_id"))})


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
