"""The special tokens and the chat format of Llama 3, which Meta's own folders do not contain.

Source: the tokenizer and `ChatFormat` of Meta's llama3 and llama-models repositories, and the names
that the tokenizer.json of the same models on Hugging Face has.
"""

from pathlib import Path
from typing import Any

from quatrain.json_files import read_object

RANKS, _SPECIAL = 128_000, 256  # how many tokens of text Llama 3 has, and how many special ones
_BEGIN, _END, _TURN = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"
_HEADER = "<|start_header_id|>", "<|end_header_id|>"
# By their place behind the tokens of text; the others are reserved, numbered in order.
_OF_3 = {0: _BEGIN, 1: _END, 6: _HEADER[0], 7: _HEADER[1], 9: _TURN}
_OF_3_1 = {**_OF_3, 4: "<|finetune_right_pad_id|>", 8: "<|eom_id|>", 10: "<|python_tag|>"}
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ message['content'] | trim }}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def llama3_config(tokenizer: Path, ranks: int) -> dict[str, Any] | None:
    """A tokenizer_config.json for the file `tokenizer`, which holds this number of `ranks`; None if
    it is not Llama 3's.

    It is if there are 128,000, or if params.json beside it has 256 tokens more. Llama 3.1 and
    later, which scale their rotary embedding, name more of their special tokens.
    """
    file = tokenizer.with_name("params.json")
    params = read_object(file) if file.is_file() else {}
    if params.get("vocab_size", RANKS + _SPECIAL) != ranks + _SPECIAL:
        return None
    names = _special_tokens(_OF_3_1 if params.get("use_scaled_rope") else _OF_3)
    ends = [ranks + names.index(name) for name in (_END, "<|eom_id|>", _TURN) if name in names]
    return {
        "added_tokens_decoder": {
            str(ranks + place): {"content": name, "normalized": False, "special": True}
            for place, name in enumerate(names)
        },
        "bos_token": _BEGIN,
        "eos_token": _END,
        "eos_token_id": ends,
        "add_bos_token": True,
        "chat_template": _TEMPLATE,
    }


def _special_tokens(named: dict[int, str]) -> list[str]:
    free = [place for place in range(_SPECIAL) if place not in named]
    reserved = {place: f"<|reserved_special_token_{i}|>" for i, place in enumerate(free)}
    return [text for _, text in sorted({**named, **reserved}.items())]
