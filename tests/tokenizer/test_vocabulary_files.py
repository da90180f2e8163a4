"""Tokenizers without a tokenizer.json give the ids of AutoTokenizer, and on a phone too."""

import base64
import json
import random
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
from tests.support.formats.cpp_tokenizer import cpp_tokenizer
from tests.support.formats.sentencepiece_models import trained
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from quatrain.errors import InputError, UnknownTokenizer
from quatrain.tokenizer import Tokenizer, copy_tokenizer_files
from quatrain.tokenizer.executorch_support import adds_space_after_special_tokens, unsupported_part
from quatrain.tokenizer.files import tokenizer_files_in

LETTERS = "abcdefgh THE  \n\t.,é四🙂12'st"
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def texts() -> list[str]:
    chosen = random.Random(0)
    made = ["".join(chosen.choices(LETTERS, k=chosen.randint(1, 24))) for _ in range(120)]
    odd = [
        "",
        " ",
        "  two",
        " leading",
        "trailing ",
        "a  b",
        "x\n\ny",
        "Größe",
        "e\u0301 é",
        "\t\t",
    ]
    return [*odd, "don't DON'T 12345", *made]


def write(folder: Path, files: dict[str, object], model_type="llama") -> Path:
    for name, content in ({"config.json": {"model_type": model_type}} | files).items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        elif isinstance(content, str):
            (folder / name).write_text(content, encoding="utf-8")
        else:
            (folder / name).write_text(json.dumps(content))
    return folder


def check_as_auto_tokenizer(folder: Path, prompts: list[str], in_executorch=True) -> Tokenizer:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    (folder / "out").mkdir()
    copied = Tokenizer.load(copy_tokenizer_files(folder, folder / "out")[0])
    ours = Tokenizer.load(tokenizer_files_in(folder)[0])
    phone = cpp_tokenizer(folder / "out") if in_executorch else None
    for prompt in prompts:
        expected: list[int] = []
        for specials in (True, False):
            expected = theirs.encode(prompt, add_special_tokens=specials)
            assert ours.encode(prompt, specials) == expected, prompt
            assert copied.encode(prompt, specials) == expected, prompt
        if phone and prompt.strip():
            assert phone.encode(prompt, 0, 0) == expected, prompt
        assert copied.decode(expected) == theirs.decode(expected, skip_special_tokens=True)
    return copied


LLAMA = {"tokenizer_class": "LlamaTokenizer", "legacy": False}


@pytest.mark.parametrize(
    ("kind", "model_type", "config"),
    [
        ("llama", "llama", None),
        ("llama", "llama", LLAMA | {"add_bos_token": True}),
        ("small", "llama", LLAMA),
        ("small", "mistral", LLAMA | {"add_bos_token": True, "add_eos_token": True}),
        ("across", "phi3", {"tokenizer_class": "LlamaTokenizerFast"}),
        ("gemma", "gemma2", {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True}),
        ("gemma", "gemma3_text", None),
    ],
)
def test_sentencepiece(tmp_path, kind, model_type, config):
    files = {"tokenizer.model": trained(kind)}
    if config is not None:
        files["tokenizer_config.json"] = config
    prompts = texts()
    if config is None or config.get("tokenizer_class") != "LlamaTokenizer" or kind == "gemma":
        prompts += ["<s>hi</s> x", "<start_of_turn>user\nhi<end_of_turn>"]
    copied = check_as_auto_tokenizer(write(tmp_path, files, model_type), prompts, kind != "across")
    model = sentencepiece.SentencePieceProcessor(model_proto=trained(kind))
    assert copied.bos_id == (model.bos_id() if model_type != "none" else None)
    assert copied.eos_ids == [model.eos_id()]


@pytest.mark.parametrize("stated", ["added_tokens.json", "added_tokens_decoder"])
@pytest.mark.parametrize(
    ("model_type", "config"),
    [
        ("llama", LLAMA),
        ("llama", {"tokenizer_class": "CodeLlamaTokenizer"}),
        ("llama", {}),
        ("mistral", {"legacy": True}),
    ],
)
def test_tokens_that_were_added_to_sentencepieces(tmp_path, model_type, config, stated):
    """As many models of 2023 have them: found in a text as it came, not behind a space alone."""
    files: dict[str, object] = {"tokenizer.model": trained("small")}
    index = sentencepiece.SentencePieceProcessor(model_proto=trained("small")).vocab_size()
    if stated == "added_tokens.json":
        files |= {stated: {"<x>": index}, "tokenizer_config.json": config}
    else:
        added = {str(index): {"content": "<x>", "special": False}}
        files["tokenizer_config.json"] = config | {stated: added}
    prompts = ["the<x>", "the <x>", "x\n<x>", "<x>", "the quick"]
    check_as_auto_tokenizer(write(tmp_path, files, model_type), prompts)


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("token", [None, "<x>"])
def test_what_transformers_saves_of_sentencepieces(tmp_path, token, legacy):
    """A tokenizer.json with a Metaspace behind other steps. Where its add_tokens added one, which
    it looks for behind those, no steps that a phone reads do the same."""
    from transformers import AutoTokenizer

    files = {"tokenizer.model": trained("small"), "tokenizer_config.json": {"legacy": legacy}}
    made = AutoTokenizer.from_pretrained(write(tmp_path, files, "mistral"))
    if token is not None:
        made.add_tokens([token])
    made.save_pretrained(tmp_path / "saved")
    folder = write(tmp_path / "saved", {}, "mistral")
    prompts = [*texts(), "the<x>", "x\n<x> the", "▁the", "<s>the</s>the"]
    # Without `legacy` a phone puts a space behind special tokens, which is said.
    check_as_auto_tokenizer(folder, prompts, in_executorch=legacy and token is None)
    unread = unsupported_part(folder / "out" / "tokenizer.json")
    assert unread == ("pre_tokenizer Metaspace" if token else None)


@pytest.mark.parametrize("class_name", [None, "LlamaTokenizer"])
def test_sentencepiece_as_its_trainer_has_it_by_default(tmp_path, class_name):
    """Characters composed, spaces taken away, and no bytes for what has no piece."""
    import io

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox jumps over the lazy dog", "ﬁne ½ é"] * 20),
        model_writer=written, model_type="bpe", vocab_size=80, minloglevel=2,
    )  # fmt: skip
    files: dict[str, object] = {"tokenizer.model": written.getvalue()}
    if class_name:
        files["tokenizer_config.json"] = {"tokenizer_class": class_name}
    prompts = ["the quick", "  the   fox ", "ﬁne ½ e\u0301", "the\nfox"]
    check_as_auto_tokenizer(write(tmp_path, files), prompts, in_executorch=False)


def byte_level(cut: pre_tokenizers.PreTokenizer) -> dict:
    """A trained byte-level BPE's vocabulary and merges."""
    model = tokenizers.Tokenizer(models.BPE())
    model.pre_tokenizer = cut
    text = ["the quick brown fox, 12 345 don't DON'T stops  twice été 四行诗"] * 5
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    model.train_from_iterator(text, trainer)
    return json.loads(model.to_str())["model"]


@pytest.mark.parametrize(
    ("model_type", "config"),
    [
        ("qwen2", {"tokenizer_class": "Qwen2Tokenizer"}),
        ("qwen3", {}),
        ("llama", {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|im_start|>"}),
        ("llama", {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True}),
        ("phi", {"tokenizer_class": "CodeGenTokenizer", "add_prefix_space": False}),
        ("smollm3", {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True}),
    ],
)
def test_vocabulary_and_merges(tmp_path, model_type, config):
    model = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    added = {
        str(len(model["vocab"]) + index): {"content": text, "special": True, "normalized": False}
        for index, text in enumerate(SPECIALS)
    }
    files = {
        "vocab.json": model["vocab"],
        "merges.txt": f"#version: 0.2\n{merges}\n",
        "tokenizer_config.json": config | {"added_tokens_decoder": added},
    }
    prompts = [*texts(), "<|im_start|>user\nhi<|im_end|>"]
    composes = model_type.startswith("qwen")  # which ExecuTorch's tokenizer does wrongly
    check_as_auto_tokenizer(write(tmp_path, files, model_type), prompts, not composes)


@pytest.mark.parametrize("vocabulary", [{"a": 0, "b": 1}, {"b": 0, "ab": 1}])
def test_merges_of_another_vocabulary(tmp_path, vocabulary, capfd):
    files = {
        "vocab.json": vocabulary,
        "merges.txt": "#version: 0.2\na b\n",
        "tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer"},
    }
    write(tmp_path, files)
    with pytest.raises(InputError, match=r"does not match merges\.txt, whose merge 'a b' does not"):
        Tokenizer.load(tmp_path / "vocab.json")
    assert not capfd.readouterr().err


def ranks() -> list[bytes]:
    """Tokens of bytes, the best first."""
    model = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    bytes_of = {letter: byte for byte, letter in enumerate(_letters())}
    return [bytes(bytes_of[letter] for letter in text) for text in model["vocab"]]


def _letters() -> list[str]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return [bytes_to_unicode()[byte] for byte in range(256)]


def test_tekken(tmp_path):
    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    vocabulary = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
        for rank, token in enumerate([*ranks(), b"padding of the vocabulary"])
    ]
    settings = {
        "pattern": pattern, "default_vocab_size": len(vocabulary) + 7, "version": "v7",
        "default_num_special_tokens": 8, "num_vocab_tokens": len(vocabulary),
    }  # fmt: skip
    special = [
        {"rank": rank, "token_str": text, "is_control": True} for rank, text in enumerate(names)
    ]
    content = {"config": settings, "vocab": vocabulary, "special_tokens": special}
    said = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}
    files = {"tekken.json": content, "tokenizer_config.json": said}
    prompts = [*texts(), "<s>[INST] hi [/INST]</s>"]
    copied = check_as_auto_tokenizer(write(tmp_path, files, "mistral"), prompts)
    assert copied.encode("the")[:1] == [1] and copied.eos_ids == [2]


def test_tiktoken(tmp_path):
    lines = [base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(ranks())]
    first = len(lines)
    added = {
        str(first + index): {"content": text, "special": True, "normalized": False}
        for index, text in enumerate(("<|begin_of_text|>", "<|eot_id|>"))
    }
    said = {"added_tokens_decoder": added, "bos_token": "<|begin_of_text|>"}
    files = {"tokenizer.model": b"".join(lines), "tokenizer_config.json": said}
    prompts = [*texts(), "<|begin_of_text|>hi<|eot_id|>"]
    check_as_auto_tokenizer(write(tmp_path, files), prompts)
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(UnknownTokenizer, match=r"no tokenizer_config.json names.*--tokenizer"):
        Tokenizer.load(tmp_path / "tokenizer.model")


@pytest.mark.parametrize(
    ("decoder", "says"),
    [
        (["<s>"], "its added tokens are not tokens by id"),
        ({"<s>": 0}, "its added tokens are not tokens by id"),
        ({"1000000000000": "<s>"}, "999999999745 special tokens"),
    ],
)
def test_what_names_no_tokens_of_tiktoken(tmp_path, decoder, says):
    lines = (f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256))
    files = {
        "tokenizer.model": "".join(lines),
        "tokenizer_config.json": {"added_tokens_decoder": decoder},
    }
    write(tmp_path, files)
    with pytest.raises(InputError, match=says):
        Tokenizer.load(tmp_path / "tokenizer.model")


def tekken(**content) -> bytes:
    return json.dumps({"config": {}, "special_tokens": [], "vocab": []} | content).encode()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("tokenizer.model", b"\n\x03abc\x0a", "is not a SentencePiece model, or is damaged"),
        ("tokenizer.model", b"some words\n", "neither a SentencePiece model nor tiktoken's ranks"),
        ("tokenizer.model", b"", "--tokenizer"),
        ("tokenizer.model", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("vocab.json", b'{"a": 0}', "class is not stated.*--tokenizer"),
        ("tokenizer.model", trained("small") + b"\x12\x05\x18\x02\xc2\x02\x00", "damaged: TypeErr"),
        ("tokenizer.model", trained("small") + b"\x1a\x03\x12\x01a", "charsmap. cannot be r"),
        ("tekken.json", b"{}", "has no 'config'.*--tokenizer"),
        ("tekken.json", tekken(vocab=[{"token_bytes": "é"}]), "or is damaged: string.*ASCII"),
        (
            "tekken.json",
            tekken(config={"default_num_special_tokens": 10**12}),
            "more than any model has",
        ),
    ],
)
def test_what_cannot_be_read(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
        Tokenizer.load(tmp_path / name)


def test_every_damaged_sentencepiece_model_is_refused_or_read(tmp_path):
    whole, file = trained("small"), tmp_path / "tokenizer.model"
    chosen = random.Random(1)
    for _ in range(40):
        damaged = bytearray(whole[: chosen.randrange(1, len(whole))])
        damaged[chosen.randrange(min(len(damaged), 400))] = chosen.randrange(256)
        file.write_bytes(damaged)
        try:
            Tokenizer.load(file)
        except InputError as error:
            assert str(file) in str(error)


def test_unigram_is_refused_by_name(tmp_path):
    import io

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox jumps over the lazy dog"] * 20),
        model_writer=written, model_type="unigram", vocab_size=30, minloglevel=2,
    )  # fmt: skip
    (tmp_path / "tokenizer.model").write_bytes(written.getvalue())
    with pytest.raises(UnknownTokenizer, match=r"another type than BPE.*--tokenizer"):
        Tokenizer.load(tmp_path / "tokenizer.model")


def test_a_class_that_is_not_known_is_read_as_transformers_saves_it(tmp_path):
    from transformers import AutoTokenizer

    files = {"tokenizer.model": trained("llama")}
    files["tokenizer_config.json"] = {"tokenizer_class": "T5Tokenizer"}
    write(tmp_path, files)
    with pytest.raises(UnknownTokenizer, match=r"its class, T5Tokenizer.*save_pretrained\(OUT\)"):
        Tokenizer.load(tmp_path / "tokenizer.model")
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text())
    write(
        tmp_path, {"tokenizer_config.json": saved | {"tokenizer_class": "PreTrainedTokenizerFast"}}
    )
    assert Tokenizer.load(tmp_path / "tokenizer.json").encode("the fox") == theirs.encode("the fox")


def part(name: str) -> tuple[str, object]:
    kind, _, of = name.partition(" ")
    module = {"normalizer": normalizers, "pre_tokenizer": pre_tokenizers, "decoder": decoders}.get(
        kind, processors
    )
    arguments = {"Split": (" ", "isolated"), "Replace": (" ", "_"), "Prepend": ("_",)}
    if kind == "post_processor":
        ends = ("b", 1), ("a", 0)
        arguments |= dict.fromkeys(("BertProcessing", "RobertaProcessing"), ends)
        arguments |= {"TemplateProcessing": ("a $A", "a $A $B", [("a", 0)])}
    if of.startswith("Split "):
        behaviors = {"MergedWithNext": "merged_with_next", "Contiguous": "contiguous"}
        behavior = of.removeprefix("Split ")
        inverted = behavior not in behaviors
        return kind, module.Split(" ", behaviors.get(behavior, "isolated"), invert=inverted)
    if of == "Sequence" and kind == "post_processor":
        return kind, module.Sequence([module.ByteLevel()])
    if of == "Sequence":
        return kind, module.Sequence([module.NFC() if kind == "normalizer" else module.ByteLevel()])
    if of == "Strip" and kind == "decoder":
        return kind, module.Strip(" ", 1, 0)
    return kind, getattr(module, of)(*arguments.get(of, ()))


PARTS = [
    "normalizer NFC", "normalizer NFKC", "normalizer Lowercase", "normalizer Prepend",
    "normalizer Replace", "normalizer Strip", "normalizer Sequence", "pre_tokenizer Metaspace",
    "pre_tokenizer Whitespace", "pre_tokenizer Digits", "pre_tokenizer Split",
    "pre_tokenizer Split MergedWithNext", "pre_tokenizer Split Contiguous",
    "pre_tokenizer Split Isolated",
    "pre_tokenizer ByteLevel", "pre_tokenizer Sequence", "decoder Metaspace", "decoder WordPiece",
    "decoder Fuse", "decoder Strip", "decoder ByteFallback", "post_processor ByteLevel",
    "post_processor TemplateProcessing", "post_processor BertProcessing",
    "post_processor RobertaProcessing", "post_processor Sequence",
]  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_what_a_phone_does_not_read(tmp_path, name):
    """Said of a file just where ExecuTorch's C++ tokenizer does not load it."""
    model = tokenizers.Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    setattr(model, *part(name))
    model.save(str(tmp_path / "tokenizer.json"))
    unread = unsupported_part(tmp_path / "tokenizer.json")
    try:
        cpp_tokenizer(tmp_path)
    except RuntimeError:
        assert unread == name
    else:
        assert unread is None


@pytest.fixture(scope="module")
def meta_folder(tmp_path_factory) -> Path:
    """As Meta's own of Llama 3.1 and later, with few tokens of text."""
    folder = tmp_path_factory.mktemp("meta")
    lines = [base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(ranks())]
    (folder / "tokenizer.model").write_bytes(b"".join(lines))
    params = {"vocab_size": len(lines) + 256, "use_scaled_rope": True}
    (folder / "params.json").write_text(json.dumps(params))
    return folder


CHAT = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi  don't<|eot_id|>"


def test_llama3_of_metas_own_folder(meta_folder, tmp_path):
    """Against transformers' converter with the special tokens that pytorch_tokenizers has, and
    ExecuTorch's C++ tokenizer."""
    from pytorch_tokenizers.tiktoken import LLAMA_SPECIAL_TOKENS
    from transformers.convert_slow_tokenizer import TikTokenConverter

    file = meta_folder / "tokenizer.model"
    theirs = TikTokenConverter(str(file), extra_special_tokens=LLAMA_SPECIAL_TOKENS).converted()
    copied = Tokenizer.load(copy_tokenizer_files(meta_folder, tmp_path)[0])
    phone, begin = cpp_tokenizer(tmp_path), theirs.token_to_id("<|begin_of_text|>")
    used = ("<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|eom_id|>",
            "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>")  # fmt: skip
    for prompt in [*texts(), CHAT, "".join(used)]:
        expected = theirs.encode(prompt, add_special_tokens=False).ids
        assert copied.encode(prompt, add_special_tokens=False) == expected, prompt
        assert copied.encode(prompt) == [begin, *expected]
        assert not prompt.strip() or phone.encode(prompt, 0, 0) == expected, prompt
    ends = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")
    assert copied.eos_ids == [theirs.token_to_id(end) for end in ends]
    assert copied.model.get_vocab_size() == len(ranks()) + 256
    assert len(copied.model.get_added_tokens_decoder()) == 256


def test_llama3_chats(meta_folder):
    """As Meta's ChatFormat: a header, two line feeds, the text stripped, and the turn's end."""
    words = Tokenizer.load(meta_folder / "tokenizer.model")
    said = words.apply_chat([{"role": "user", "content": " hi  don't\n"}])
    assert said == CHAT + "<|start_header_id|>assistant<|end_header_id|>\n\n"


def test_llama_3_itself_names_fewer_special_tokens_and_others_are_not_taken(meta_folder, tmp_path):
    first = len(ranks())
    (tmp_path / "tokenizer.model").write_bytes((meta_folder / "tokenizer.model").read_bytes())
    (tmp_path / "params.json").write_text(json.dumps({"vocab_size": first + 256}))
    words = Tokenizer.load(tmp_path / "tokenizer.model")
    assert words.eos_ids == [first + 1, first + 9]
    reserved = {4: 8, 5: 10, 250: 255, 2: 4}
    places = {f"<|reserved_special_token_{i}|>": place for i, place in reserved.items()}
    assert {text: words.model.token_to_id(text) - first for text in places} == places
    (tmp_path / "params.json").write_text(json.dumps({"vocab_size": first + 2048}))
    with pytest.raises(UnknownTokenizer, match=r"no tokenizer_config.json names.*--tokenizer"):
        Tokenizer.load(tmp_path / "tokenizer.model")


@pytest.mark.parametrize("legacy", [None, False, True])
@pytest.mark.parametrize(
    ("model_type", "name"),
    [("llama", "LlamaTokenizer"), ("llama", None), ("mistral", "LlamaTokenizer")],
)
def test_a_space_behind_a_special_token(tmp_path, model_type, name, legacy):
    """Where ids are not AutoTokenizer's, that is known, to be said."""
    from transformers import AutoTokenizer

    stated = {"tokenizer_class": name, "legacy": legacy}
    config = {key: value for key, value in stated.items() if value is not None}
    files = {"tokenizer.model": trained("small"), "tokenizer_config.json": config}
    folder = write(tmp_path, files, model_type)
    theirs = AutoTokenizer.from_pretrained(folder).encode("the</s>the")
    ours = Tokenizer.load(folder / "tokenizer.model").encode("the</s>the")
    assert adds_space_after_special_tokens(folder / "tokenizer.model") is (ours != theirs)
