"""A GGUF's tokenizer as tokenizer.json: read alike by tokenizers and by ExecuTorch's C++."""

import json

import pytest
import tiny_models as tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from quatrain.checkpoint.gguf_file import read_gguf
from quatrain.checkpoint.gguf_tokenizer import tokenizer_files_from_gguf
from quatrain.errors import InputError
from quatrain.tokenizer import Tokenizer

PRES = ["smollm", "llama-bpe", "qwen2", "gpt-2"]


def metadata_of(folder, kind, **changes):
    path = tiny.write_gguf(folder / f"{kind}.gguf", tokenizer=kind)
    metadata = read_gguf(path).metadata
    for key, value in changes.items():
        if value is None:
            metadata.pop(f"tokenizer.ggml.{key}", None)
        else:
            metadata[f"tokenizer.ggml.{key}"] = value
    return metadata


@pytest.fixture(scope="module", params=PRES)
def written(request, tmp_path_factory):
    """(pre-tokenizer, folder with its two files)"""
    folder = tmp_path_factory.mktemp(request.param)
    metadata = metadata_of(folder, request.param)
    files = tokenizer_files_from_gguf(metadata, folder / "m.gguf", folder)
    assert [file.name for file in files] == ["tokenizer.json", "tokenizer_config.json"]
    return request.param, folder


def cpp_tokenizer(folder):
    from pytorch_tokenizers import CppHFTokenizer

    tokenizer = CppHFTokenizer()
    tokenizer.load(str(folder))
    return tokenizer


PIECES = [
    "hello",
    " world",
    "12",
    "123",
    "<|stop|>",
    "<user>",
    "'s",
    "'S",
    "  ",
    "\n",
    "é",
    "漢",
    "🙂",
]


@settings(max_examples=150, deadline=None)
@given(text=st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=8).map("".join))
def test_cpp_encodes_alike_and_decodes_back(written, text):
    _, folder = written
    ours = Tokenizer.load(folder / "tokenizer.json")
    ids = ours.encode(text, add_special_tokens=False)
    # PCRE in the C++ reads NUL and unassigned characters its own way; models are not given them.
    if text.isprintable():
        assert list(cpp_tokenizer(folder).encode(text, 0, 0)) == ids
    assert ours.decode(ids, skip_special_tokens=False) == text


def test_words_are_cut_as_the_family_cuts_them(written):
    pre, folder = written
    tokenizer = Tokenizer.load(folder / "tokenizer.json")

    def cut(text):
        return [word for word, _ in tokenizer.model.pre_tokenizer.pre_tokenize_str(text)]

    digits = {
        "smollm": ["a", "1", "2", "3", "4"],
        "llama-bpe": ["a", "123", "4"],
        "qwen2": ["a", "1", "2", "3", "4"],
        "gpt-2": ["a", "1234"],
    }
    assert cut("a1234") == digits[pre]
    one_word = pre in ("llama-bpe", "qwen2")  # case-insensitive contractions, newlines joined
    assert cut("IT'S") == (["IT", "'S"] if one_word else ["IT", "'", "S"])
    assert cut("x.\n\ny") == (["x", ".ĊĊ", "y"] if one_word else ["x", ".", "Ċ", "Ċ", "y"])


def test_special_tokens_and_merges(written):
    _, folder = written
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    hello = tokenizer.model.token_to_id("hello")
    assert tokenizer.encode("hello<|stop|><user>", add_special_tokens=False) == [hello, 2, 3]
    assert tokenizer.decode([hello, 2, 3]) == "hello<user>"
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (1, [2])
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["bos_token"] == "<|start|>"
    assert tokenizer.apply_chat([{"role": "user", "content": "hi"}]) == "user:hi"


def test_cpp_reads_the_end_tokens_from_the_folder(written):
    _, folder = written
    tokenizer = cpp_tokenizer(folder)
    assert (tokenizer.bos_tok(), tokenizer.eos_tok()) == (1, 2)


@pytest.mark.parametrize("pre", PRES)
@pytest.mark.parametrize("stated", [True, False, None])
def test_bos_only_where_the_model_was_trained_so(tmp_path, pre, stated):
    metadata = metadata_of(tmp_path, pre, add_bos_token=stated)
    tokenizer_files_from_gguf(metadata, tmp_path, tmp_path)
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    adds = pre == "llama-bpe" if stated is None else stated
    assert (tokenizer.encode("x")[0] == 1) == adds
    assert tokenizer.encode("x", add_special_tokens=False)[0] != 1


def test_every_end_token_is_kept(tmp_path):
    metadata = metadata_of(tmp_path, "smollm", eot_token_id=0, eom_token_id=2)
    tokenizer_files_from_gguf(metadata, tmp_path, tmp_path)
    assert Tokenizer.load(tmp_path / "tokenizer.json").eos_ids == [0, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre": "tekken"}, "tokenizer.ggml.pre is 'tekken', expected gpt-2, smollm"),
        ({"pre": None}, "tokenizer.ggml.pre is None"),
        ({"model": "llama"}, "its tokenizer is 'llama', expected 'gpt2'"),
        ({"tokens": None}, "no list tokenizer.ggml.tokens"),
        ({"merges": 3}, "no list tokenizer.ggml.merges"),
        ({"merges": ["a z"]}, "the merge 'a z' is not of two tokens"),
        ({"merges": ["a"]}, "the merge 'a'"),
        ({"eos_token_id": 272}, "eos_token_id is 272, expected below 272"),
        ({"bos_token_id": "x"}, "bos_token_id is 'x'"),
    ],
)
def test_what_cannot_be_written_is_named(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        tokenizer_files_from_gguf(metadata_of(tmp_path, "smollm", **changes), tmp_path, tmp_path)
