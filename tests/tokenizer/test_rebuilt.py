"""A tokenizer.json whose class transformers builds anew gives AutoTokenizer's ids, also where its
own steps, or fields of tokenizer_config.json, say otherwise."""

import json
import random
import unicodedata
from pathlib import Path

import pytest
import tokenizers
from tests.support.formats.sentencepiece_models import trained
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from quatrain.checkpoint.families import FAMILIES
from quatrain.checkpoint.families.multimodal import MULTIMODAL
from quatrain.errors import UnknownTokenizer
from quatrain.tokenizer import Tokenizer, copy_tokenizer_files, rebuilt
from quatrain.tokenizer.executorch_support import adds_space_after_special_tokens, unsupported_part
from quatrain.tokenizer.files import tokenizer_class
from quatrain.tokenizer.vocabulary_files import read_vocabulary

LETTERS = "abcdefgh THE  \n\t.,é四🙂12'st"
SPECIALS = ("<|endoftext|>", "<s>", "</s>")


def prompts() -> list[str]:
    chosen = random.Random(0)
    made = ["".join(chosen.choices(LETTERS, k=chosen.randint(1, 24))) for _ in range(100)]
    return ["", " ", "  two", " leading", "trailing ", "e\u0301 é", "don't DON'T 12345", *made]


def words_of_digits() -> pre_tokenizers.PreTokenizer:
    """As SmolLM's file has it, and more: no class does."""
    cut = pre_tokenizers.Split(Regex(r"\d{2}|\s+|\w"), "isolated")
    return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=True)])


@pytest.fixture(scope="module")
def byte_level() -> str:
    model = tokenizers.Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, special_tokens=[*SPECIALS], show_progress=False
    )
    model.train_from_iterator(["the THE 12 345 don't DON'T  twice été"] * 5, trainer)
    model.decoder = decoders.ByteLevel()
    begin = [("<s>", model.token_to_id("<s>"))]
    model.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=begin)
    return model.to_str()


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("pieces") / "tokenizer.model"
    file.write_bytes(trained("small"))
    return read_vocabulary(file, {"tokenizer_class": "LlamaTokenizer"})[0].to_str()


def check(
    folder: Path,
    model: tokenizers.Tokenizer,
    model_type: str,
    config: dict,
    texts: tuple[str, ...] = (),
) -> None:
    from transformers import AutoTokenizer

    model.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "out").mkdir()
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = Tokenizer.load(folder / "tokenizer.json")
    copied = Tokenizer.load(copy_tokenizer_files(folder, folder / "out")[0])
    again = AutoTokenizer.from_pretrained(folder / "out")
    for prompt in texts or prompts():
        expected = theirs.encode(prompt)
        assert ours.encode(prompt) == expected, prompt
        assert copied.encode(prompt) == expected, prompt
        # The copy leaves it to who gives a text to compose its characters: a phone cannot.
        composes = "NFC" in repr(theirs.backend_tokenizer.normalizer)
        given = unicodedata.normalize("NFC", prompt) if composes else prompt
        # On a phone a space stands before the text behind each special token.
        stated = json.loads((folder / "out/tokenizer_config.json").read_text())
        if not (texts and "metaspace" in stated):
            assert again.encode(given) == expected, prompt
        assert copied.decode(expected) == theirs.decode(expected, skip_special_tokens=True)


@pytest.mark.parametrize(
    "model_type", [*(family.hugging_face.model_type for family in FAMILIES), *MULTIMODAL]
)
def test_the_class_by_model_type(model_type, tmp_path) -> None:
    """Of every family, and of the models whose text model it is, as AutoTokenizer has it: a generic
    class is taken whatever tokenizer_config.json says."""
    from transformers.models.auto import tokenization_auto as auto

    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    theirs = (auto.TOKENIZER_MAPPING_NAMES.get(model_type) or "").removesuffix("Fast")
    file = tmp_path / "tokenizer.json"
    assert tokenizer_class(file, {}) == theirs
    always = theirs == "TokenizersBackend"
    always |= model_type in auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS
    stated = tokenizer_class(file, {"tokenizer_class": "XTokenizerFast"})
    assert stated == (theirs if always else "XTokenizer")


@pytest.mark.parametrize("own_cut", [False, True])
@pytest.mark.parametrize(
    ("model_type", "config"),
    [
        ("qwen2", {"tokenizer_class": "LlamaTokenizerFast", "add_prefix_space": True}),
        ("qwen3", {"tokenizer_class": "Qwen2Tokenizer"}),
        ("qwen3", {"tokenizer_class": "PreTrainedTokenizerFast"}),
        ("llama", {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}),
        ("llama", {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False}),
        ("llama", {"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": True}),
        ("smollm3", {"tokenizer_class": "Qwen2Tokenizer", "add_bos_token": False}),
        ("mistral", {"tokenizer_class": "GPT2Tokenizer"}),
        ("mistral", {"tokenizer_class": "BertTokenizerFast"}),
        ("granite", {"tokenizer_class": "GPT2Tokenizer"}),
        ("ernie4_5", {"tokenizer_class": "Qwen2Tokenizer"}),
        ("llama", {}),
        ("qwen2_vl", {"tokenizer_class": "Qwen2TokenizerFast"}),
        ("llava", {"tokenizer_class": "LlamaTokenizer", "processor_class": "LlavaProcessor"}),
        ("qwen3_vl", {}),
        ("llama", {"tokenizer_class": "GPTNeoXTokenizer", "add_bos_token": True}),
        ("llama", {"tokenizer_class": "GPTNeoXTokenizerFast", "add_prefix_space": True}),
        ("llama", {"tokenizer_class": "Qwen3_5Tokenizer"}),
        ("phi", {"tokenizer_class": "CodeGenTokenizer", "add_bos_token": False}),
        ("phi", {"tokenizer_class": "CodeGenTokenizerFast", "add_prefix_space": True}),
        ("cohere", {"tokenizer_class": "CohereTokenizerFast"}),
        ("cohere2", {"add_prefix_space": True}),
    ],
)
def test_byte_level(byte_level, tmp_path, model_type, config, own_cut) -> None:
    model = tokenizers.Tokenizer.from_str(byte_level)
    if own_cut:
        model.pre_tokenizer, model.normalizer = words_of_digits(), normalizers.Lowercase()
        model.model.ignore_merges = True
    check(tmp_path, model, model_type, config | {"eos_token": "</s>", "bos_token": "<s>"})


@pytest.mark.parametrize(
    "name",
    ["GPT2Tokenizer", "CodeGenTokenizer", "Qwen2Tokenizer", "GPTNeoXTokenizer", "CohereTokenizer"],
)
@pytest.mark.parametrize(
    "config", [{}, {"eos_token": "<a>"}, {"added_tokens_decoder": {}}, {"pad_token": None}]
)
def test_tokens_that_the_class_names_and_the_file_adds(tmp_path, name, config) -> None:
    """Its own names get the next ids; what the file adds is left out where others are listed."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.add_special_tokens(["<s>"])
    model.enable_padding(length=12, pad_id=3, pad_token="t")
    texts = ("the <s> x", "<|endoftext|><a>", "t", "<BOS_TOKEN>a<|END_OF_TURN_TOKEN|>")
    check(tmp_path, model, "llama", config | {"tokenizer_class": name}, texts)


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word", "normalized"])
@pytest.mark.parametrize("name", ["Qwen2Tokenizer", "GPT2Tokenizer"])
@pytest.mark.parametrize("listed", [False, True])
def test_properties_of_named_tokens(byte_level, tmp_path, name, flag, listed):
    """Qwen's class takes none of them."""
    model = tokenizers.Tokenizer.from_str(byte_level)
    token = tokenizers.AddedToken("<e>", special=True, **({"normalized": False} | {flag: True}))
    model.add_tokens([token, tokenizers.AddedToken("<x>", special=True, **{flag: True})])
    config = {"tokenizer_class": name, "eos_token": "<e>", "pad_token": None}
    if listed:
        flags = {"special": True, "lstrip": False, "rstrip": False, "single_word": False}
        config["added_tokens_decoder"] = {
            str(index): flags | {"content": added.content, "normalized": False, flag: True}
            for index, added in model.get_added_tokens_decoder().items()
            if added.content in ("<e>", "<x>")
        }
    check(tmp_path, model, "llama", config, ("a <e> b", "a <x> b", "<e>the", " <e> <x>\n"))


def test_a_listed_token_that_is_its_text_alone(byte_level, tmp_path) -> None:
    (tmp_path / "tokenizer.json").write_text(byte_level)
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<e>"}
    config["added_tokens_decoder"] = {"330": "<e>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    assert tokenizer.encode("the<e>", add_special_tokens=False)[-1:] == tokenizer.eos_ids


@pytest.mark.parametrize("steps", ["prepended", "metaspace", "none"])
@pytest.mark.parametrize(
    ("model_type", "config"),
    [
        ("llama", {"tokenizer_class": "LlamaTokenizer", "legacy": False}),
        ("llama", {"tokenizer_class": "LlamaTokenizerFast", "add_prefix_space": False}),
        ("llama", {"tokenizer_class": "PreTrainedTokenizerFast", "legacy": False}),
        ("gemma2", {"tokenizer_class": "GemmaTokenizer"}),
        ("gemma3_text", {}),
        ("gemma", {"tokenizer_class": "LlamaTokenizer", "legacy": True}),
        ("mistral", {"tokenizer_class": "LlamaTokenizer"}),
        ("phi3", {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False}),
        ("llama", {"tokenizer_class": "CodeLlamaTokenizer"}),
        ("llama", {"tokenizer_class": "CodeLlamaTokenizerFast", "add_prefix_space": False}),
        ("llama", {"tokenizer_class": "CodeLlamaTokenizer", "bos_token": None}),
    ],
)
def test_pieces(pieces, tmp_path, model_type, config, steps) -> None:
    model = tokenizers.Tokenizer.from_str(pieces)
    if steps == "prepended":
        model.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    elif steps == "metaspace":
        model.normalizer = None
        model.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always", split=True)
    check(tmp_path, model, model_type, config)
    if steps == "prepended":
        assert unsupported_part(tmp_path / "out" / "tokenizer.json") is None


def test_added_tokens_that_are_to_be_looked_for_behind_the_steps(pieces, tmp_path) -> None:
    """As files of 2023 state them: `LlamaTokenizer` finds them in a text as it came."""
    content = json.loads(pieces)
    for token in content["added_tokens"]:
        token["normalized"] = True
    vocabulary = content["model"]["vocab"]
    vocabulary["normalized"] = len(vocabulary)  # a piece, and no flag of a token
    model = tokenizers.Tokenizer.from_str(json.dumps(content))
    model.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    end = {"__type": "AddedToken", "content": "</s>", "normalized": True}
    config = {"tokenizer_class": "LlamaTokenizer", "eos_token": end}
    check(tmp_path, model, "llama", config, ("the</s>", "the <unk>", " </s>", "the"))


@pytest.mark.parametrize("name", ["LlamaTokenizer", "CodeLlamaTokenizer"])
@pytest.mark.parametrize("stated", ["added_tokens.json", "added_tokens_decoder"])
def test_added_tokens_that_the_files_beside_it_name(pieces, tmp_path, name, stated) -> None:
    """They are looked for as they are written, too."""
    model = tokenizers.Tokenizer.from_str(pieces)
    schema = {"properties": {"content": {"type": "string"}}}  # which is no token
    config: dict = {"tokenizer_class": name, "response_schema": schema}
    index = model.get_vocab_size()
    if stated == "added_tokens.json":
        (tmp_path / stated).write_text(json.dumps({"<x>": index}))
    else:
        config[stated] = {str(index): {"content": "<x>", "special": False}}
    check(tmp_path, model, "llama", config, ("the<x>", "the <x>", "x\n<x>", "<x>"))
    copied = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert copied["response_schema"] == schema


def test_what_code_llama_names_itself(pieces, tmp_path) -> None:
    model = tokenizers.Tokenizer.from_str(pieces)
    model.normalizer = None
    model.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always", split=True)
    texts = ("▁<PRE>the ▁<SUF> x▁<MID>", "the▁<EOT>", "<s>the</s> x", "a <unk> b")
    config = {"tokenizer_class": "CodeLlamaTokenizer"}
    check(tmp_path, model, "llama", config, texts)


@pytest.mark.parametrize(
    ("config", "spaced"),
    [
        ({"tokenizer_class": "LlamaTokenizer", "legacy": False}, True),
        ({"tokenizer_class": "LlamaTokenizer", "legacy": True}, False),
        ({"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False}, False),
        ({"tokenizer_class": "CodeLlamaTokenizer"}, True),
        ({"tokenizer_class": "GemmaTokenizer"}, False),
    ],
)
def test_a_space_behind_a_special_token(pieces, tmp_path, config, spaced) -> None:
    """Where ids are not AutoTokenizer's, that is known, to be said."""
    from transformers import AutoTokenizer

    file = tmp_path / "tokenizer.json"
    tokenizers.Tokenizer.from_str(pieces).save(str(file))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    text = "the</s>the"
    theirs = AutoTokenizer.from_pretrained(tmp_path).encode(text)
    assert adds_space_after_special_tokens(file) is spaced
    assert (Tokenizer.load(file).encode(text) != theirs) is spaced


def test_a_class_that_is_not_known(byte_level, tmp_path) -> None:
    tokenizers.Tokenizer.from_str(byte_level).save(str(tmp_path / "tokenizer.json"))
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"tokenizer_class": "WhisperTokenizerFast"}')
    with pytest.raises(UnknownTokenizer, match=r"its class, WhisperTokenizer.*, or set"):
        Tokenizer.load(tmp_path / "tokenizer.json")
    config.write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    assert Tokenizer.load(tmp_path / "tokenizer.json").encode("the")


@pytest.mark.parametrize("name", ["GemmaTokenizer", "CodeLlamaTokenizerFast"])
def test_a_class_that_reads_no_bytes(byte_level, tmp_path, name) -> None:
    """With which transformers makes nothing of most words."""
    tokenizers.Tokenizer.from_str(byte_level).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    with pytest.raises(UnknownTokenizer, match=r"is byte-level, .* cannot read; .* set"):
        Tokenizer.load(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("name", ["LlamaTokenizer", "GPT2Tokenizer"])
def test_a_class_that_reads_no_prefix_of_tokens_inside_of_words(tmp_path, name) -> None:
    """With which transformers fails, too."""
    vocabulary = {"a": 0, "##b": 1, "ab": 2}
    model = models.BPE(vocabulary, [("a", "##b")], continuing_subword_prefix="##")
    tokenizers.Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    with pytest.raises(UnknownTokenizer, match=r"continuing_subword_prefix is '##', .* set"):
        copy_tokenizer_files(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("kind", [models.WordLevel, models.Unigram, models.WordPiece])
def test_a_vocabulary_without_merges(kind, tmp_path) -> None:
    """Of which those classes make a BPE, and others leave it as it is."""
    words = ["<unk>", "the", "x"]
    scored = kind is models.Unigram
    vocab = [(word, 0.0) for word in words] if scored else {w: i for i, w in enumerate(words)}
    model = tokenizers.Tokenizer(
        kind(vocab, **({"unk_id": 0} if scored else {"unk_token": "<unk>"}))
    )
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    model.save(str(tmp_path / "tokenizer.json"))
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"tokenizer_class": "LlamaTokenizerFast"}')
    with pytest.raises(
        UnknownTokenizer, match=rf"type {kind.__name__}.* converts to BPE.*, or set"
    ):
        Tokenizer.load(tmp_path / "tokenizer.json")
    config.write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    assert Tokenizer.load(tmp_path / "tokenizer.json").encode("the x") == [1, 2]
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')  # with a class of its own
    with pytest.raises(UnknownTokenizer, match=r"Qwen2Tokenizer converts to BPE.*as --tokenizer$"):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_what_code_llama_knows_no_piece_of(pieces, tmp_path) -> None:
    model = tokenizers.Tokenizer.from_str(pieces)
    state = json.loads(model.to_str())
    for token in [token for token in state["model"]["vocab"] if token.startswith("<0x")]:
        del state["model"]["vocab"][token]
    model = tokenizers.Tokenizer.from_str(json.dumps(state))
    check(tmp_path, model, "llama", {"tokenizer_class": "CodeLlamaTokenizer"}, ("the\u6f22x",))


@pytest.mark.thorough  # imports every class
def test_every_class_that_builds_its_own_is_known_or_refused() -> None:
    import transformers

    backend = transformers.TokenizersBackend
    names = {name.removesuffix("Fast") for name in dir(transformers) if "Tokenizer" in name}
    kinds = {name: getattr(transformers, name, None) for name in names}
    own = {
        name
        for name, kind in kinds.items()
        if isinstance(kind, type)
        and issubclass(kind, backend)
        and kind.__init__ is not backend.__init__
    }
    assert own - {"TokenizersBackend"} <= rebuilt._CLASSES.keys() | rebuilt._OTHERS
    assert not rebuilt._CLASSES.keys() & rebuilt._OTHERS
