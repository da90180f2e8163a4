"""What ExecuTorch's C++ tokenizer reads otherwise than it is meant, and what is written for it."""

import json
import re
import sys

import pytest
import tokenizers
import transformers
from tests.support.formats.cpp_tokenizer import cpp_tokenizer
from tests.support.formats.sentencepiece_models import trained
from tests.support.models import tiny_models as tiny
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

from quatrain.checkpoint.open import open_checkpoint
from quatrain.checkpoint.written_tokenizer import write_tokenizer_of
from quatrain.tokenizer import Tokenizer, copy_tokenizer_files
from quatrain.tokenizer.executorch_support import (
    BYTES_OF_TEXTS,
    lost_with_unknown_character,
    normalized_tokens,
    tokens_that_strip_spaces,
    unsupported_part,
)
from quatrain.tokenizer.vocabulary_files import read_vocabulary

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
TEXTS = ["café öl й 한국어", "cafe\u0301 o\u0308l", "ab12  cd!\n\n½", "x 1234567"]
ALL = r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+"


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


STEPS = {
    "composed": (normalizers.NFC(), []),
    "composed first": (
        normalizers.Sequence([normalizers.NFC(), normalizers.Replace("l", "L")]),
        [],
    ),
    "no steps": (normalizers.Sequence([]), [split(ALL)]),
    "a part matched": (None, [split(r"\p{N}{1,3}")]),
    "a part matched, then all": (None, [split(r"\p{N}{1,3}"), split(ALL)]),
    "its inverse": (None, [split(r"\p{N}+", invert=True)]),
    "removed": (None, [split(r"\s+", "removed")]),
    "all matched": (None, [split(ALL)]),
    "by a place": (None, [split(r"(?=(\d{3})+(?!\d))"), split(r"(?<=\d)(?=[a-z])", "removed")]),
    **{
        f"{behavior}{', inverse' * invert}, {kind}": (None, [made(pattern, behavior, invert)])
        for behavior in ("merged_with_previous", "merged_with_next", "contiguous", "removed")
        for invert in (False, True)
        for kind, pattern, made in (
            ("pattern", r"\s|\d", split),
            ("text", " ", pre_tokenizers.Split),
        )
    },
}
# What ExecuTorch reads as it is.
READ = {"all matched", "merged_with_previous, text", "removed, text", "removed, inverse, pattern"}


def original(folder, normalizer, splits) -> tokenizers.Tokenizer:
    pieces = {character: index for index, character in enumerate(ALPHABET)}
    pairs = [(a, b) for a in "abcdefx12Ġ" for b in "abcdefx12Ġ"]
    pieces |= {a + b: len(pieces) + index for index, (a, b) in enumerate(pairs)}
    model = tokenizers.Tokenizer(models.BPE(pieces, pairs))
    model.normalizer = normalizer
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
    model.decoder = decoders.ByteLevel()
    model.save(str(folder / "tokenizer.json"))
    return model


@pytest.mark.parametrize("steps", STEPS)
def test_the_copy_gives_the_same_ids_here_and_there(tmp_path, steps):
    model = original(tmp_path, *STEPS[steps])
    for name in ("copy", "again"):
        (tmp_path / name).mkdir()
    copy_tokenizer_files(tmp_path, tmp_path / "copy")
    copy_tokenizer_files(tmp_path / "copy", tmp_path / "again")
    cpp = cpp_tokenizer(tmp_path / "again")
    for text in TEXTS:
        ids = model.encode(text).ids
        for name in ("copy", "again"):
            assert Tokenizer.load(tmp_path / name / "tokenizer.json").encode(text) == ids
        # An app composes characters itself; those that came composed stay.
        if "composed" not in steps or text.isascii() or text == TEXTS[0]:
            assert list(cpp.encode(text, 0, 0)) == ids
    same = (tmp_path / "copy/tokenizer.json").read_bytes() == (
        tmp_path / "tokenizer.json"
    ).read_bytes()
    assert same == (steps in READ)
    stated = json.loads((tmp_path / "again/tokenizer_config.json").read_text())
    assert stated.get("unicode_normalization") == ("NFC" if "composed" in steps else None)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("decoded", ["always", "never"])
@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_metaspace_in_steps(tmp_path, scheme, decoded, split):
    (tmp_path / "tokenizer.model").write_bytes(trained("small"))
    read = {"tokenizer_class": "LlamaTokenizer"}
    model = read_vocabulary(tmp_path / "tokenizer.model", read)[0]
    model.normalizer = None
    model.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", scheme, split)
    model.decoder = decoders.Metaspace("\u2581", decoded, split)
    model.add_tokens(["<x>"])  # as transformers' add_tokens adds it, "normalized"
    model.save(str(tmp_path / "tokenizer.json"))
    for name in ("copy", "again"):
        (tmp_path / name).mkdir()
    copy_tokenizer_files(tmp_path / "tokenizer.json", tmp_path / "copy")
    copy_tokenizer_files(tmp_path / "copy", tmp_path / "again")
    cpp, ours = cpp_tokenizer(tmp_path / "again"), Tokenizer.load(tmp_path / "again/tokenizer.json")
    for text in (
        "the quick  fox",
        " the",
        "  the \u2581fox ",
        "\n the",
        "     the",
        "the<x>\n<x>",
        "<s>the</s> fox",
        "a<x>the fox",
    ):
        ids = model.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, add_special_tokens=False) == ids
        assert ours.decode(ids) == model.decode(ids)
        if not re.search("<(s|x)>.", text, re.DOTALL) or scheme != "first":
            assert list(cpp.encode(text, 0, 0)) == ids


@pytest.mark.parametrize(
    "stated",
    [
        True,
        {"prepend_scheme": "first"},
        {"prepend_scheme": 0, "split": True},
        {"prepend_scheme": "some", "split": True},
        {"prepend_scheme": "first", "split": None},
    ],
)
def test_a_metaspace_that_was_not_written_here(tmp_path, stated):
    model = tokenizers.Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    model.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"metaspace": stated}))
    checkpoint = open_checkpoint(tiny.write_checkpoint(tmp_path / "checkpoint"))
    (tmp_path / "out").mkdir()
    written = write_tokenizer_of(checkpoint, tmp_path / "out", tmp_path / "tokenizer.json")
    assert Tokenizer.load(written.files[0]).encode("ba") == model.encode("ba").ids
    assert not any("special token" in note for note in written.notes)


def test_special_tokens_that_are_text_where_a_text_has_them(tmp_path):
    model = tokenizers.Tokenizer(
        models.BPE({letter: index for index, letter in enumerate(ALPHABET)}, [])
    )
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.add_special_tokens(["<|x|>"])
    model.save(str(tmp_path / "tokenizer.json"))
    checkpoint = open_checkpoint(tiny.write_checkpoint(tmp_path / "checkpoint"))
    special = model.token_to_id("<|x|>")
    for split in (False, True):
        config = {"split_special_tokens": split, "tokenizer_class": "PreTrainedTokenizerFast"}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)("a<|x|>b")["input_ids"]
        assert (special in theirs) != split
        out = tmp_path / str(split)
        out.mkdir()
        written = write_tokenizer_of(checkpoint, out, tmp_path / "tokenizer.json")
        assert Tokenizer.load(written.files[0]).encode("a<|x|>b") == theirs
        assert special in cpp_tokenizer(out).encode("a<|x|>b", 0, 0)
        assert any("split_special_tokens" in note for note in written.notes) == split


@pytest.mark.parametrize("kind", [processors.BertProcessing, processors.RobertaProcessing])
def test_tokens_at_both_ends(tmp_path, kind):
    model = original(tmp_path, None, [])
    model.add_special_tokens(["<s>", "</s>"])
    first, last = (model.token_to_id(token) for token in ("<s>", "</s>"))
    model.post_processor = kind(("</s>", last), ("<s>", first))
    model.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "out").mkdir()
    written, _ = copy_tokenizer_files(tmp_path, tmp_path / "out")
    assert Tokenizer.load(written).encode("ab") == model.encode("ab").ids
    ids = cpp_tokenizer(tmp_path / "out").encode("ab", 0, 0)
    assert list(ids) == model.encode("ab", add_special_tokens=False).ids


def test_runs_of_spaces_that_are_added_tokens(tmp_path):
    """As Gemma's: given by merges to a text with spaces, and found where one has the character."""
    pieces = {piece: index for index, piece in enumerate(["▁▁", "▁▁▁", "a", "b", "▁", "▁b"])}
    pairs = [("▁▁", "▁"), ("▁", "▁"), ("▁", "b")]
    model = tokenizers.Tokenizer(models.BPE(pieces, pairs))
    model.normalizer = normalizers.Replace(" ", "▁")
    model.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    runs = [tokenizers.AddedToken(run, normalized=False) for run in ("▁▁", "▁▁▁")]
    model.add_tokens([*runs, tokenizers.AddedToken("<x>", normalized=False)])
    model.save(str(tmp_path / "tokenizer.json"))
    for name in ("copy", "again"):
        (tmp_path / name).mkdir()
    copy_tokenizer_files(tmp_path, tmp_path / "copy")
    copy_tokenizer_files(tmp_path / "copy", tmp_path / "again")
    cpp, ours = cpp_tokenizer(tmp_path / "again"), Tokenizer.load(tmp_path / "again/tokenizer.json")
    for text in ("a b", "a  b", "  a", "b   a<x>  b", "    a", "a ▁▁ b▁b"):
        ids = model.encode(text).ids
        assert ours.encode(text) == ids
        assert "▁" in text or list(cpp.encode(text, 0, 0)) == ids


@pytest.mark.parametrize("flag", [None, "normalized", "lstrip", "rstrip", "single_word"])
def test_tokens_that_a_phone_finds_otherwise_are_named(tmp_path, flag):
    model = original(tmp_path, None, [split(ALL)])
    model.add_special_tokens([tokenizers.AddedToken("<x>", **({flag: True} if flag else {}))])
    model.save(str(tmp_path / "tokenizer.json"))
    cpp, text = cpp_tokenizer(tmp_path), "ab <x>  c<x>d"
    alike = list(cpp.encode(text, 0, 0)) == model.encode(text).ids
    assert tokens_that_strip_spaces(tmp_path / "tokenizer.json") == ([] if alike else ["<x>"])


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize(
    "pieces", ["bytes", "a byte less", "fallback", "half of it", "no fallback"]
)
def test_characters_that_a_phone_drops_a_text_for_are_said(tmp_path, pieces, cut):
    """ExecuTorch's C++ tokenizer gives nothing for what holds one, the unknown token neither."""
    byte_level = "byte" in pieces
    count = {"fallback": 256, "half of it": 128}.get(pieces, 0)
    names = ["<unk>", *(ALPHABET[: -1 if "less" in pieces else None] if byte_level else "ab▁")]
    names += [f"<0x{byte:02X}>" for byte in range(count)]
    vocabulary = {name: index for index, name in enumerate(names)}
    model = tokenizers.Tokenizer(
        models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=count > 0)
    )
    steps = [split(r"ab|[\s\S]")] if cut else []
    steps += [pre_tokenizers.ByteLevel(False, use_regex=False)] if byte_level else []
    model.pre_tokenizer = pre_tokenizers.Sequence(steps) if steps else None
    model.save(str(tmp_path / "tokenizer.json"))
    cpp, text = cpp_tokenizer(tmp_path), "ab\u00ada"
    found, whole = list(cpp.encode(text, 0, 0)), model.encode(text).ids
    lost = None if found == whole else "its word" if found or byte_level else "all of the text"
    assert lost_with_unknown_character(tmp_path / "tokenizer.json") == lost


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("steps", [[], [("▁", "Prepend")], [(" ", "Replace")]])
def test_tokens_that_are_looked_for_in_a_prepared_text_are_named(tmp_path, steps, normalized):
    model = original(tmp_path, None, [split(ALL)])
    kinds = {"Prepend": lambda it: normalizers.Prepend(it),
             "Replace": lambda it: normalizers.Replace(it, "▁")}  # fmt: skip
    model.normalizer = normalizers.Sequence([kinds[kind](it) for it, kind in steps])
    model.add_tokens([tokenizers.AddedToken("<x>", normalized=normalized)])
    model.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "copy").mkdir()
    copied = copy_tokenizer_files(tmp_path, tmp_path / "copy")[0]
    alike = (
        list(cpp_tokenizer(tmp_path / "copy").encode("ab<x>d", 0, 0)) == model.encode("ab<x>d").ids
    )
    assert normalized_tokens(copied) == ([] if alike else ["<x>"])


def test_merges_that_are_left_out_by_chance(tmp_path):
    """As a training script leaves a file behind: a phone never does so."""
    model = original(tmp_path, None, [split(ALL)])
    ids = model.encode("a bb c dd").ids
    model.model.dropout = 0.7
    model.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "copy").mkdir()
    copied = copy_tokenizer_files(tmp_path, tmp_path / "copy")[0]
    for file in (tmp_path / "tokenizer.json", copied):
        assert all(Tokenizer.load(file).encode("a bb c dd") == ids for _ in range(8))
    assert tokenizers.Tokenizer.from_file(str(copied)).encode("a bb c dd").ids == ids


def test_bytes_that_no_text_has_may_lack_tokens(tmp_path):
    """SmolLM2 has none of some control characters and of bytes that UTF-8 or Unicode leave out."""
    unused = (0x04, 0x1D, 0xC0, 0xC1, 0xF1, 0xF2, 0xF5, 0xFF)
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256) if byte not in unused}
    model = tokenizers.Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    model.save(str(tmp_path / "tokenizer.json"))
    assert lost_with_unknown_character(tmp_path / "tokenizer.json") is None


def test_bytes_of_texts_are_those_of_characters_that_can_be_printed() -> None:
    every = (chr(point) for point in range(sys.maxunicode + 1))
    assert set("".join(filter(str.isprintable, every)).encode() + b"\t\n\r") == BYTES_OF_TEXTS


@pytest.mark.parametrize("affix", ["continuing_subword_prefix", "end_of_word_suffix"])
def test_pieces_with_an_affix_are_read_otherwise(tmp_path, affix):
    pieces = {piece: index for index, piece in enumerate(["a", "b", "##b", "b</w>"])}
    model = tokenizers.Tokenizer(
        models.BPE(pieces, [], **{affix: "##" if "pre" in affix else "</w>"})
    )
    model.save(str(tmp_path / "tokenizer.json"))
    assert list(cpp_tokenizer(tmp_path).encode("ab", 0, 0)) != model.encode("ab").ids
    assert unsupported_part(tmp_path / "tokenizer.json") == f"model BPE with {affix}"
