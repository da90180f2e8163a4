"""Gemma 4's tokenizer from GGUF, whose merges are stated: the same tokens as transformers' class
and in C++."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.support.formats import sentencepiece_models as models
from tests.support.formats.cpp_tokenizer import cpp_tokenizer
from tests.support.formats.gguf_files import gguf_file
from transformers import GemmaTokenizer
from transformers.tokenization_utils_base import generate_merges

from quatrain.checkpoint.gguf.file import read_gguf
from quatrain.errors import InputError
from quatrain.tokenizer import Tokenizer
from quatrain.tokenizer.from_gguf import tokenizer_files_from_gguf

CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = [
    *("the ", " tensor", "  ", "   x", "\n", "\n\n", "\t", "12", "<", "é", "漢字", "🙂", "\r\n"),
    *("<|turn>", "<turn|>", "<tool|>"),
]
TEXT = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=10).map("".join)


def vocabulary():
    """(tokens, merges): of runs of line breaks and spaces, and of some words."""
    words = ["the", "tensor", "quatrain", "line", "lines", "of", "in", "1", "2", "é"]
    whole = [f"{space}{word}" for word in words for space in ("▁", "")]
    runs = [character * count for character in "\n▁" for count in (1, 2, 3, 4)]
    parts = dict.fromkeys(word[:cut] for word in whole for cut in range(1, len(word) + 1))
    letters = dict.fromkeys(letter for word in whole for letter in word)
    pieces = list(dict.fromkeys([*runs, *letters, *parts]))
    scores = {piece: -float(index) for index, piece in enumerate(pieces)}
    return [*CONTROL, "<tool|>", *BYTES, *pieces], generate_merges(scores, scores)


def write(path, merges, **changes):
    tokens, _ = vocabulary()
    control = dict.fromkeys(CONTROL, models.CONTROL) | dict.fromkeys(BYTES, models.BYTE)
    control["<tool|>"] = models.USER_DEFINED
    with gguf_file(path, "gemma4") as writer:
        writer.add_tokenizer_model("gemma4")
        writer.add_token_list(tokens)
        writer.add_token_scores([-1000.0] * len(tokens))
        writer.add_token_types([control.get(token, models.NORMAL) for token in tokens])
        writer.add_token_merges([" ".join(pair) for pair in merges])
        for name, index in {"eos": 1, "bos": 2, "unk": 3, **changes}.items():
            getattr(writer, f"add_{name}_token_id")(index)
        writer.add_add_space_prefix(False)
        writer.add_add_bos_token(True)
    return path


@pytest.fixture(scope="module")
def all_three(tmp_path_factory):
    """(transformers' class, ours, C++'s)"""
    folder = tmp_path_factory.mktemp("gemma4")
    tokens, merges = vocabulary()
    path = write(folder / "m.gguf", merges)
    tokenizer_files_from_gguf(read_gguf(path).metadata, path, folder)
    ids = {token: index for index, token in enumerate(tokens)}
    theirs = GemmaTokenizer(vocab=ids, merges=merges, extra_special_tokens=CONTROL[5:])
    theirs.add_tokens(["<tool|>"])
    return theirs, Tokenizer.load(folder / "tokenizer.json"), cpp_tokenizer(folder)


@settings(max_examples=150, deadline=None)
@given(text=TEXT)
def test_same_tokens_as_transformers(all_three, text):
    theirs, ours, cpp = all_three
    assume("▁" not in text)
    ids = ours.encode(text, add_special_tokens=False)
    assert ids == theirs.encode(text, add_special_tokens=False)
    assert list(cpp.encode(text, 0, 0)) == ids
    assert ours.decode(ids, skip_special_tokens=False) == text


def test_what_begins_a_text_and_ends_a_turn(all_three):
    assert all_three[1].encode("the")[0] == 2
    assert all_three[1].eos_ids == [1, CONTROL.index("<turn|>")]


def test_a_merge_of_no_tokens(tmp_path):
    path = write(tmp_path / "m.gguf", [("▁", "never")])
    with pytest.raises(InputError, match="the merge '▁ never' does not join two tokens"):
        tokenizer_files_from_gguf(read_gguf(path).metadata, path, tmp_path)
