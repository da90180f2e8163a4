"""The special tokens of the tokenizer classes of transformers that have some of their own."""

from typing import Any

# What a class calls its tokens where tokenizer_config.json does not.
_INFILLING = {
    "prefix_token": "▁<PRE>", "middle_token": "▁<MID>", "suffix_token": "▁<SUF>",
    "eot_token": "▁<EOT>", "fill_token": "<FILL_ME>",
}  # fmt: skip
_END_OF_TEXT = "<|endoftext|>"
_GPT2 = {**dict.fromkeys(("bos_token", "eos_token", "unk_token"), _END_OF_TEXT), "pad_token": None}
NAMED: dict[str, dict[str, Any]] = {
    "LlamaTokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "GemmaTokenizer": {
        "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>",
        "mask_token": "<mask>",
    },
    "GPT2Tokenizer": _GPT2,
    "CodeGenTokenizer": _GPT2,
    **dict.fromkeys(
        ("Qwen2Tokenizer", "Qwen3_5Tokenizer"),
        dict.fromkeys(("eos_token", "unk_token", "pad_token"), _END_OF_TEXT),
    ),
    "GPTNeoXTokenizer": {
        **dict.fromkeys(("bos_token", "eos_token", "unk_token"), _END_OF_TEXT),
        "pad_token": "<|padding|>",
    },
    "CohereTokenizer": {
        "bos_token": "<BOS_TOKEN>", "eos_token": "<|END_OF_TURN_TOKEN|>", "unk_token": "<UNK>",
        "pad_token": "<PAD>", "cls_token": "<CLS>", "sep_token": "<SEP>",
        "mask_token": "<MASK_TOKEN>",
    },
    "CodeLlamaTokenizer": {
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **_INFILLING,
    },
}  # fmt: skip
