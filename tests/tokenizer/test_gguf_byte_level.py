"""A GGUF's tokenizer as tokenizer.json: read alike by tokenizers and by ExecuTorch's C++."""

import json

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.formats import gguf_files as ggufs
from tests.support.formats.cpp_tokenizer import cpp_tokenizer

from quatrain.checkpoint.gguf.file import read_gguf
from quatrain.errors import InputError
from quatrain.tokenizer import Tokenizer
from quatrain.tokenizer.from_gguf import tokenizer_files_from_gguf

PRES = ["smollm", "llama-bpe", "qwen2", "gpt-2", "gpt-4o", "tekken"]
# Those that cut in a way of their own: a text, and its words as llama.cpp has them.
OWN = {
    "hunyuan-dense": (
        "ab漢字12345 x.\n\n  9½", ["ab", "漢字", "123", "45", " x", ".\n\n", "  ", "9½"]
    ),
    "deepseek-coder": (
        "ab漢字12 x+ y\n\n!  z",
        ["ab", "漢字", "1", "2", " x", "+", " y", "\n", "\n", "!", " ", " z"],
    ),
    "deepseek-llm": (
        "ab漢字12 x+ y\n\n!  z  ",
        ["ab", "漢字", "1", "2", " x", "+", " y", "\n", "\n", "!", " ", " z", "  "],
    ),
    "afmoe": (
        "ab漢字1234567 x.\n\n  9½", ["ab", "漢字", "1", "234", "567", " x", ".\n\n", "  ", "9½"]
    ),
    "minicpm5": ("a  12345  b", ["a", "  ", "123", "45", " ", " b"]),
    "seed-coder": ("x.\n\ny 12", ["x", ".", "\n\n", "y", " ", "1", "2"]),
    "tiny_aya": ("a 1234567 x", ["a", " ", "1", "234", "567", " x"]),
    "superbpe": ("by the 1234567, x", ["by the ", "1", "234", "567", ", x"]),
    "youtu": (
        "fooBar漢字、12 it's한글 ㄅx",
        ["foo", "Bar", "漢字", "、", "1", "2", " it's", "한글", " ", "ㄅ", "x"],
    ),
    "viking": ("a bc. d12!", ["a", " bc", ".", " d", "1", "2", "!"]),
}  # fmt: skip
# Names of other families that cut text as one of these.
ALIKE = {
    "refact": "smollm",
    "llama3": "llama-bpe",
    "lfm2": "llama-bpe",
    "smaug-bpe": "llama-bpe",
    "dbrx": "llama-bpe",
    "deepseek-r1-qwen": "qwen2",
    "llama4": "gpt-4o",
    "falcon3": "llama-bpe",
    "falcon-h1": "llama-bpe",
    "glm4": "llama-bpe",
    "chatglm-bpe": "llama-bpe",
    "stablelm2": "qwen2",
    "command-r": "smollm",
    "exaone": "smollm",
    "exaone4": "gpt-2",
    "phi-2": "gpt-2",
    "hunyuan": "qwen2",
    "olmo": "gpt-2",
}


def metadata_of(folder, kind, **changes):
    path = ggufs.write_gguf(folder / f"{kind}.gguf", tokenizer=kind)
    metadata = read_gguf(path).metadata
    for name, value in changes.items():
        key = name if name.startswith("tokenizer.") else f"tokenizer.ggml.{name}"
        if value is None:
            metadata.pop(key, None)
        else:
            metadata[key] = value
    return metadata


@pytest.fixture(scope="module", params=PRES)
def written(request, tmp_path_factory):
    """(pre-tokenizer, folder with its two files)"""
    folder = tmp_path_factory.mktemp(request.param)
    metadata = metadata_of(folder, request.param)
    files = tokenizer_files_from_gguf(metadata, folder / "m.gguf", folder)
    assert [file.name for file in files] == ["tokenizer.json", "tokenizer_config.json"]
    return request.param, folder


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


@pytest.mark.parametrize("pre", OWN)
def test_families_that_cut_in_steps(tmp_path, pre):
    """Here and on a phone, which drops what the pattern of a step does not match."""
    tokenizer_files_from_gguf(metadata_of(tmp_path, pre), tmp_path, tmp_path)
    tokenizer, (text, expected) = Tokenizer.load(tmp_path / "tokenizer.json"), OWN[pre]
    shown = dict(enumerate(ggufs.byte_alphabet()))
    words = [word for word, _ in tokenizer.model.pre_tokenizer.pre_tokenize_str(text)]
    assert words == ["".join(shown[byte] for byte in word.encode()) for word in expected]
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert list(cpp_tokenizer(tmp_path).encode(text, 0, 0)) == ids


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
        "gpt-4o": ["a", "123", "4"],
        "tekken": ["a", "1", "2", "3", "4"],
    }
    assert cut("a1234") == digits[pre]
    # Short forms in capitals, and line breaks after a mark.
    old = pre in ("gpt-2", "smollm")
    short = {"llama-bpe": ["IT", "'S"], "qwen2": ["IT", "'S"], "gpt-4o": ["IT'S"]}
    short["tekken"] = ["IT", "'S"]  # the mark is any that stands before a word
    assert cut("IT'S") == (["IT", "'", "S"] if old else short[pre])
    assert cut("x.\n\ny") == (["x", ".", "Ċ", "Ċ", "y"] if old else ["x", ".ĊĊ", "y"])
    cased = pre in ("gpt-4o", "tekken")
    assert cut("fooBar") == (["foo", "Bar"] if cased else ["fooBar"])


def published_pattern(pre, monkeypatch):
    """Of a word, as others state it: tiktoken, ExecuTorch's tokenizers, transformers."""
    import tiktoken_ext.openai_public as openai
    from pytorch_tokenizers.constants import CL100K_PAT_STR
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
    from transformers.models.qwen2 import tokenization_qwen2 as qwen2
    from transformers.models.qwen3_5 import tokenization_qwen3_5 as qwen3_5

    if pre == "gpt-2":
        return openai.r50k_pat_str
    if pre == "gpt-4o":
        monkeypatch.setattr(openai, "load_tiktoken_bpe", lambda *_, **__: {})  # no download
        return openai.o200k_base()["pat_str"]
    if pre == "tekken":
        return GGUF_PRE_TOKENIZER_SPLITS["tekken"]
    return {
        "llama-bpe": CL100K_PAT_STR,
        "qwen2": qwen2.PRETOKENIZE_REGEX,
        "qwen35": qwen3_5.PRETOKENIZE_REGEX,
    }[pre]


WORDS = [
    *(
        "Foo",
        "fooBar",
        "ǅ",
        "ʰ",
        "ß",
        "Ärger",
        "e\u0301",
        "don't",
        "WE'RE",
        "'",
        "'ll'LL",
        "-x",
        "_",
    ),
    *("//", ".\n", " ", "  ", "\t", "\r\n", "1234", "٣", "²", "漢字", "हि", "🙂"),
]


@pytest.mark.parametrize("pre", [*(pre for pre in PRES if pre != "smollm"), "qwen35"])
def test_words_are_cut_as_published(tmp_path, monkeypatch, pre):
    metadata = metadata_of(tmp_path, pre)
    tokenizer_files_from_gguf(metadata, tmp_path, tmp_path)
    cutter = Tokenizer.load(tmp_path / "tokenizer.json").model.pre_tokenizer
    pattern = regex.compile(published_pattern(pre, monkeypatch))
    shown = dict(enumerate(ggufs.byte_alphabet()))

    @settings(max_examples=400, deadline=None)
    @given(text=st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=8).map("".join))
    def check(text):
        # Libraries know different versions of Unicode; what is printable is in all of them.
        text = "".join(c for c in text if c.isprintable() or c in "\r\n\t")
        words = ["".join(shown[byte] for byte in word.encode()) for word in pattern.findall(text)]
        assert [word for word, _ in cutter.pre_tokenize_str(text)] == words

    check()


@pytest.mark.parametrize("pre", ALIKE)
def test_families_that_cut_alike(tmp_path, pre):
    files = []
    for name in (pre, ALIKE[pre]):
        folder = tmp_path / name
        folder.mkdir()
        tokenizer_files_from_gguf(metadata_of(folder, name), folder, folder)
        files.append(json.loads((folder / "tokenizer.json").read_text()))
    assert files[0]["pre_tokenizer"] == files[1]["pre_tokenizer"]
    # That Granite, Phi, Qwen and SmolLM3 begin no text with a token of its own is in their files.
    ignoring = ("llama3", "lfm2", "smaug-bpe", "llama4", "falcon3", "falcon-h1")
    assert files[0]["model"]["ignore_merges"] == (pre in ignoring)


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


@pytest.mark.parametrize("pre", [*PRES, *ALIKE])
@pytest.mark.parametrize("stated", [True, False, None])
def test_bos_only_where_the_model_was_trained_so(tmp_path, pre, stated):
    metadata = metadata_of(tmp_path, pre, add_bos_token=stated)
    tokenizer_files_from_gguf(metadata, tmp_path, tmp_path)
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    adds = (
        pre in ("llama-bpe", "llama3", "lfm2", "falcon3", "falcon-h1", "tekken")
        if stated is None
        else stated
    )
    assert (tokenizer.encode("x")[0] == 1) == adds
    assert tokenizer.encode("x", add_special_tokens=False)[0] != 1


def test_every_end_token_is_kept(tmp_path):
    metadata = metadata_of(tmp_path, "smollm", eot_token_id=0, eom_token_id=2)
    tokenizer_files_from_gguf(metadata, tmp_path, tmp_path)
    assert Tokenizer.load(tmp_path / "tokenizer.json").eos_ids == [0, 2]


@pytest.mark.parametrize(
    ("text", "changes", "found"),
    [
        ("<|im_end|>", {}, [2, 3]),  # user-defined, as token 3 of the file is
        ("<|end|>", {"eos_token_id": None}, [3]),
        ("<|eom_id|>", {"eot_token_id": 0}, [0, 2, 3]),
        ("<|im_end|>", {"eot_token_id": 0}, [0, 2]),  # stated otherwise
        ("<|im_end|>", {"token_type": None}, [2]),  # a piece of text that happens to look so
        ("<|im_start|>", {}, [2]),
    ],
)
def test_ends_that_a_file_does_not_state_are_known_by_their_text(tmp_path, text, changes, found):
    metadata = metadata_of(tmp_path, "smollm", **changes)
    metadata["tokenizer.ggml.tokens"][3] = text
    tokenizer_files_from_gguf(metadata, tmp_path, tmp_path)
    assert Tokenizer.load(tmp_path / "tokenizer.json").eos_ids == found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre": "falcon"}, "tokenizer.ggml.pre is 'falcon', expected one of gpt-2, exaone4"),
        ({"pre": None}, "tokenizer.ggml.pre is None"),
        ({"pre": ["a"]}, r"tokenizer.ggml.pre is \['a'\]"),
        ({"tokens": ["a", "b", "c", "a"], "merges": []}, "tokenizer.ggml.tokens has 'a' twice"),
        ({"tokens": None}, "tokenizer.ggml.tokens is not a list of strings"),
        ({"merges": 3}, "tokenizer.ggml.merges is not a list of strings"),
        ({"merges": [5]}, "tokenizer.ggml.merges is not a list of strings"),
        ({"merges": ["a z"]}, "the merge 'a z' does not join two tokens"),
        ({"merges": ["a"]}, "the merge 'a'"),
        ({"eos_token_id": 272}, "eos_token_id is 272, expected below 272"),
        ({"eos_token_id": True}, "eos_token_id is True, expected below 272"),
        ({"bos_token_id": "x"}, "bos_token_id is 'x'"),
        ({"token_type": ["3"] * 272}, "token_type is not a list of numbers"),
        ({"token_type": np.array([3, 3])}, "token_type holds 2 finite numbers, expected one for"),
        ({"add_bos_token": 1}, "add_bos_token is 1, expected true or false"),
        ({"tokenizer.chat_template": 3}, "tokenizer.chat_template is 3, expected a string"),
    ],
)
def test_what_cannot_be_written_is_named(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        tokenizer_files_from_gguf(metadata_of(tmp_path, "smollm", **changes), tmp_path, tmp_path)
