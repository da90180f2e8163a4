"""SentencePiece from GGUF: the same tokens as sentencepiece itself, in tokenizers and in C++."""

import re
import shutil

import numpy as np
import pytest
import sentencepiece
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tests.support.formats import sentencepiece_models as models
from tests.support.formats.cpp_tokenizer import cpp_tokenizer

from quatrain.checkpoint.gguf.file import read_gguf
from quatrain.errors import InputError
from quatrain.runtime.generation.generate import generate
from quatrain.tokenizer import Tokenizer
from quatrain.tokenizer.end_tokens import end_ids_of_gguf
from quatrain.tokenizer.from_gguf import tokenizer_files_from_gguf

SPACE = "▁"
PIECES = [
    *(" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\t\t", "\0"),
    *("the ", " tensor", "=====", "12", "<", "</", "é", "e\u0301"),
    *("строки", "漢字", "🙂", "🫩", "👩\u200d🚀"),
]
TEXT = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map("".join)


def written(folder, model, **options):
    """The folder's tokenizer.json, from a GGUF file of `model`."""
    path = models.write_gguf(folder / "m.gguf", model, **options)
    tokenizer_files_from_gguf(read_gguf(path).metadata, path, folder)
    return Tokenizer.load(folder / "tokenizer.json")


@pytest.fixture(scope="module")
def llama():
    return processor(models.trained("llama"))


def processor(model):
    return sentencepiece.SentencePieceProcessor(model_proto=model)


@pytest.fixture(scope="module", params=["llama", "across", "gemma", "gemma without a tab"])
def both(request, tmp_path_factory):
    """(sentencepiece's, ours, C++'s)"""
    folder = tmp_path_factory.mktemp("spm")
    kind, _, without = request.param.partition(" without ")
    proto = models.trained(kind)
    model = processor(models.without_single_tab(proto) if without else proto)
    gemma = {"user_defined": models.GEMMA_SYMBOLS, "prefix": False}
    ours = written(folder, model, **gemma if kind == "gemma" else {})
    return model, ours, cpp_tokenizer(folder)


@settings(max_examples=300, deadline=None)
@given(text=TEXT)
@example("  two spaces,   three \n\n\n  \t\t\tif x:\t")
@example(f"{SPACE}a {SPACE}{SPACE} b")
def test_same_tokens_and_text_as_sentencepiece(both, text):
    model, ours, cpp = both
    # Written out in a text, control tokens become themselves; sentencepiece reads their letters.
    assume(not any(name in text for name in ("<s>", "</s>", "<unk>", "<pad>", "<bos>", "<eos>")))
    if model.piece_to_id("<table>") != model.unk_id():
        # sentencepiece looks for user-defined pieces after spaces have become this, we before: it
        # takes two of these for two spaces.
        text = text.replace(SPACE, "")
    ids = ours.encode(text, add_special_tokens=False)
    assert ids == model.encode(text)
    assert list(cpp.encode(text, 0, 0)) == ids
    decoded = ours.decode(ids, skip_special_tokens=False)
    assert decoded == model.decode(ids) == text.replace(SPACE, " ")
    assert cpp.decode_batch(ids, False) == decoded
    stream = ours.stream()
    assert "".join(map(stream.push, ids)) + stream.finish() == decoded


@settings(max_examples=100, deadline=None)
@given(text=TEXT)
@example("<s> ")
@pytest.mark.parametrize("architecture", ["llama", "phi3", "gemma2"])
def test_same_tokens_as_transformers_reads_from_the_file(peers, architecture, text):
    ours, theirs = peers[architecture]
    if architecture == "llama":
        # It adds no space before one, at the beginning and after a token; sentencepiece does.
        text = re.sub(rf"(^|<s>|</s>|<unk>)[ {SPACE}]+", r"\1", text)
    if architecture == "gemma2":
        # It takes the longest piece of spaces only where there are no more of them than that.
        text = text.replace(SPACE, "").replace(models.SPACES[-1].replace(SPACE, " "), "")
    assert ours.encode(text) == theirs.encode(text)


@pytest.fixture(scope="module")
def peers(tmp_path_factory):
    """Architecture -> (our tokenizer, that of transformers)"""
    from transformers import AutoTokenizer

    found = {}
    for architecture in ("llama", "phi3", "gemma2"):
        folder, alone = tmp_path_factory.mktemp("ours"), tmp_path_factory.mktemp("theirs")
        gemma = architecture == "gemma2"
        options = {"user_defined": models.GEMMA_SYMBOLS, "prefix": False} if gemma else {}
        model = processor(models.trained("gemma" if gemma else "llama"))
        ours = written(folder, model, architecture=architecture, **options)
        shutil.copy(folder / "m.gguf", alone / "m.gguf")
        found[architecture] = ours, AutoTokenizer.from_pretrained(alone, gguf_file="m.gguf")
    return found


def test_special_tokens_are_found_whole(tmp_path, llama):
    ours = written(tmp_path, llama)
    bos, eos, unknown = llama.bos_id(), llama.eos_id(), llama.unk_id()
    hello = llama.encode("hello")
    assert ours.encode("<s>hello</s><unk>") == [bos, bos, *hello, eos, unknown]
    assert ours.decode([bos, *hello, eos]) == "hello"
    assert (ours.bos_id, ours.eos_ids) == (bos, [eos])
    # What only looks like a byte is text.
    assert ours.encode("<0x41>", add_special_tokens=False) == llama.encode("<0x41>")


GEMMA_TEMPLATE = (
    "{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}"
    "<start_of_turn>model\n"
)


def test_a_chat_stops_where_the_template_ends_a_turn(tmp_path):
    """Gemma's file states the end of a text, and no end of a turn."""
    model = processor(models.trained("gemma"))
    path = models.write_gguf(tmp_path / "m.gguf", model, models.GEMMA_SYMBOLS, prefix=False)
    metadata = read_gguf(path).metadata | {"tokenizer.chat_template": GEMMA_TEMPLATE}
    assert not any("eot" in key for key in metadata)
    tokenizer_files_from_gguf(metadata, path, tmp_path)
    words = Tokenizer.load(tmp_path / "tokenizer.json")
    end = words.model.token_to_id("<end_of_turn>")
    assert words.eos_ids == [model.eos_id(), end] == end_ids_of_gguf(metadata)

    prompt = words.encode(words.apply_chat([{"role": "user", "content": "hello"}]))
    answer = [*words.encode("a stanza", add_special_tokens=False), end]
    runner = Recites(answer + prompt, len(words.model.get_vocab()))
    found = generate(runner, prompt, context=99, max_new_tokens=50, eos_ids=words.eos_ids)
    assert found.tokens == answer[:-1]


class Recites:
    """A runner whose next token is always the next of `tokens`."""

    def __init__(self, tokens, vocab_size):
        self.left, self.vocab_size = list(tokens), vocab_size

    def reset(self):
        pass

    def forward(self, tokens, input_pos):
        logits = torch.zeros(1, self.vocab_size)
        logits[0, self.left.pop(0)] = 1.0
        return logits


@pytest.mark.parametrize("add_bos", [None, True, False])
@pytest.mark.parametrize("add_eos", [None, True, False])
def test_tokens_around_a_text(tmp_path, llama, add_bos, add_eos):
    flags = {"add_bos": add_bos, "add_eos": add_eos}
    given = {name: flag for name, flag in flags.items() if flag is not None}
    ours = written(tmp_path, llama, **given)
    first = [] if add_bos is False else [llama.bos_id()]
    last = [llama.eos_id()] if add_eos else []
    assert ours.encode("hello") == [*first, *llama.encode("hello"), *last]
    assert cpp_tokenizer(tmp_path).encode("hello", 1, 1) == ours.encode("hello")


def test_phi3_drops_space_after_its_special_tokens(tmp_path, llama):
    """As its tokenizer.json does, and llama.cpp. ExecuTorch's C++ does not know of it."""
    symbols = ("er",)
    ours = written(tmp_path, llama, architecture="phi3", user_defined=symbols)
    er = llama.piece_to_id("er")
    hello = llama.encode("hello")
    assert ours.encode("</s>\n hello", False) == [llama.eos_id(), *hello]
    assert ours.encode("er\n hello", False) == [er, *hello]
    assert ours.encode("<s>\nhello", False) == [llama.bos_id(), *llama.encode("\nhello")]
    other = written(tmp_path, llama, user_defined=symbols)
    assert other.encode("</s>\nhello", False) == [llama.eos_id(), *llama.encode("\nhello")]


def test_user_defined_where_a_space_is_put_before_a_text(tmp_path, llama):
    """Text after such a token begins anew, with a space, as in llama.cpp."""
    ours = written(tmp_path, llama, user_defined=("er", "▁t"))
    token, spaced = llama.piece_to_id("er"), llama.piece_to_id("▁t")
    assert spaced != llama.unk_id() != token
    assert ours.encode("er is", False) == [token, *llama.encode(" is")]
    assert ours.encode("is t", False) == [*llama.encode("is"), spaced]
    assert ours.decode([token, spaced]) == "er t"


def damaged(folder, whole, **changes):
    """The metadata of a GGUF file with keys replaced, or taken away by None."""
    metadata = read_gguf(models.write_gguf(folder / "m.gguf", whole)).metadata
    for key, value in changes.items():
        if value is None:
            del metadata[f"tokenizer.ggml.{key}"]
        else:
            metadata[f"tokenizer.ggml.{key}"] = value
    return metadata


SIZE = models.COMMON["vocab_size"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": None}, "tokenizer.ggml.scores is not a list of numbers"),
        ({"scores": ["a"] * SIZE}, "tokenizer.ggml.scores is not a list of numbers"),
        ({"scores": np.zeros(SIZE - 1)}, f"scores holds {SIZE - 1} finite numbers, expected one"),
        ({"scores": np.full(SIZE, np.nan)}, f"scores holds 0 finite .* each of the {SIZE} tokens"),
        ({"token_type": None}, "tokenizer.ggml.token_type is not a list of numbers"),
        ({"token_type": np.ones(3, np.int32)}, "token_type holds 3 finite numbers"),
        ({"unknown_token_id": SIZE}, f"unknown_token_id is {SIZE}, expected below {SIZE}"),
        ({"unknown_token_id": None, "token_type": np.ones(SIZE, np.int32)}, "no unknown token"),
        (
            {"tokens": [f"t{i}" for i in range(SIZE)]},
            "lacks 256 of the 256 bytes, the first of them <0x00>",
        ),
        ({"tokens": ["a"]}, "expected below 1"),
        ({"model": "t5"}, r"'t5', expected 'gpt2' \(byte-level BPE\) or 'llama'"),
        ({"model": np.ones(2)}, "its tokenizer is array"),
    ],
)
def test_damage_is_named(tmp_path, llama, changes, message):
    with pytest.raises(InputError, match=message):
        tokenizer_files_from_gguf(damaged(tmp_path, llama, **changes), tmp_path, tmp_path)


def test_damaged_tokens_are_named(tmp_path, llama):
    metadata = damaged(tmp_path, llama)
    tokens = metadata["tokenizer.ggml.tokens"]
    changes = {
        "<0x41>": ("<0x4>", "lacks 1 of the 256 bytes, the first of them <0x41>"),
        tokens[-1]: (tokens[-2], "twice"),
        "<s>": ("a:1", "'a:1' cannot begin or end every text"),
    }
    for old, (new, message) in changes.items():
        metadata["tokenizer.ggml.tokens"] = [new if token == old else token for token in tokens]
        with pytest.raises(InputError, match=message):
            tokenizer_files_from_gguf(metadata, tmp_path, tmp_path)


def test_the_same_file_gives_the_same_bytes(tmp_path, llama):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder, llama)
    a, b = ((tmp_path / folder / "tokenizer.json").read_bytes() for folder in ("a", "b"))
    assert a == b
