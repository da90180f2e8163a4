"""SentencePiece models, trained on this repository's text, and GGUF files of them as llama.cpp's
converter writes them."""

import io
from functools import cache
from pathlib import Path

import sentencepiece
from tests.support.formats.gguf_files import gguf_file
from tests.support.paths import ROOT

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
OTHER_TEXT = (
    "Ein Dichter übte täglich Verse, Größe und Maß. Où est l'été ? Ça va, garçon.",
    "Четыре строки делают строфу. 四行诗由四行组成。 四行詩は四行からなる。 네 줄의 시.",
    "चार पंक्तियों का छंद होता है। رباعية من أربعة أسطر 🙂 🚀🚀 👩‍🚀",
    "\tif x:\t\treturn 1\t\t\t# tabs\t\tand\ttabs\t\t\t\t\t",
)
SPACES = ["▁" * count for count in range(2, 9)]
GEMMA_SYMBOLS = ["\n", "\n\n", "\n\n\n", *SPACES, "<start_of_turn>", "<end_of_turn>", "<table>"]
# What Llama 2's, Mistral's and Gemma's own models were trained with.
COMMON = {
    "model_type": "bpe",
    "vocab_size": 1500,
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "character_coverage": 0.999,
    "split_digits": True,
    "num_threads": 1,
    "minloglevel": 2,
}
KINDS = {
    "llama": {},
    "gemma": {
        "add_dummy_prefix": False,
        "user_defined_symbols": GEMMA_SYMBOLS,
        "allow_whitespace_only_pieces": True,
        "pad_id": 0,
        "eos_id": 1,
        "bos_id": 2,
        "unk_id": 3,
        "pad_piece": "<pad>",
        "eos_piece": "<eos>",
        "bos_piece": "<bos>",
    },
    "small": {"vocab_size": 600},
    # Pieces that reach across spaces, and long runs of one character.
    "across": {"split_by_whitespace": False, "split_digits": False, "max_sentencepiece_length": 32},
}


@cache
def trained(kind: str) -> bytes:
    """The model file of one of KINDS."""
    files = [*sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("src/quatrain/checkpoint/*.py"))]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    runs = [character * length for character in "=-. #" for length in (3, 8, 20)]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*lines, *OTHER_TEXT * 30, *runs * 5]),
        model_writer=written,
        **{**COMMON, **KINDS[kind]},
    )
    return written.getvalue()


def without_single_tab(model: bytes) -> bytes:
    """`model`, whose piece of one tab became one of another character, as Gemma 2's has none."""
    assert model.count(b"\n\x01\t") == 1  # field 1, one byte long
    return model.replace(b"\n\x01\t", b"\n\x01\x02")


def token_types(model: sentencepiece.SentencePieceProcessor, user_defined=()) -> list[int]:
    """As the converter tells them, which reads user-defined tokens from elsewhere."""
    kinds = {
        UNKNOWN: model.is_unknown,
        CONTROL: model.is_control,
        UNUSED: model.is_unused,
        BYTE: model.is_byte,
        USER_DEFINED: lambda index: model.id_to_piece(index) in user_defined,
    }
    return [
        next((kind for kind, is_it in kinds.items() if is_it(index)), NORMAL)
        for index in range(model.get_piece_size())
    ]


def write_gguf(
    path: Path,
    model: sentencepiece.SentencePieceProcessor,
    user_defined=(),
    architecture="llama",
    prefix=True,
    **flags,
) -> Path:
    """A GGUF file of `model` without tensors. `flags`: `add_bos`, `add_eos`."""
    types = token_types(model, user_defined)
    tokens = [model.id_to_piece(index) for index in range(len(types))]
    scores = [model.get_score(index) for index in range(len(types))]
    for index, kind in enumerate(types):
        if kind == USER_DEFINED:
            tokens[index], scores[index] = tokens[index].replace("▁", " "), -1000.0
    with gguf_file(path, architecture) as writer:
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(tokens)
        writer.add_token_scores(scores)
        writer.add_token_types(types)
        writer.add_bos_token_id(model.bos_id())
        writer.add_eos_token_id(model.eos_id())
        writer.add_unk_token_id(model.unk_id())
        if not prefix:
            writer.add_add_space_prefix(False)
        if "add_bos" in flags:
            writer.add_add_bos_token(flags["add_bos"])
        if "add_eos" in flags:
            writer.add_add_eos_token(flags["add_eos"])
    return path
