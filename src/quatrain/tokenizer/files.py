"""A tokenizer's files: their names, where to find them, how to copy them.

A model's folder may hold another form of tokenizer instead (`quatrain.tokenizer.vocabulary_files`).

| where | tokenizer.json | tokenizer_config.json |
|---|---|---|
| a model's folder, an int4 checkpoint | `tokenizer.json` | `tokenizer_config.json` |
| beside the program `model.pte` | `model.tokenizer.json` | `model.tokenizer_config.json` |
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from quatrain.atomic_files import whole_copies
from quatrain.errors import InputError
from quatrain.folder_entries import entries
from quatrain.json_files import read_object
from quatrain.stand_ins import refuse_stand_in
from quatrain.tokenizer.named_tokens import with_flags, with_special_tokens_map

TOKENIZER, CONFIG = "tokenizer.json", "tokenizer_config.json"
_SPECIAL, _ADDED = "special_tokens_map.json", "added_tokens.json"
# Where the chat template is kept: by transformers 5; several by their names; for a processor.
_TEMPLATE, _MORE_TEMPLATES = "chat_template.jinja", "additional_chat_templates"
_PROCESSOR, _PROCESSOR_CONFIG = "chat_template.json", "processor_config.json"
_BESIDE = (CONFIG, _SPECIAL, _ADDED, _TEMPLATE, _PROCESSOR, _PROCESSOR_CONFIG)
# SentencePiece's or tiktoken's; BPE before tokenizer.json; Mistral's. Where there are several, what
# AutoTokenizer takes.
SENTENCEPIECE, VOCABULARY, TEKKEN = "tokenizer.model", "vocab.json", "tekken.json"
MERGES = "merges.txt"  # goes with VOCABULARY
_FORMS = (TOKENIZER, TEKKEN, SENTENCEPIECE, VOCABULARY)
# The class that AutoTokenizer takes by a config.json's model_type, and those of them that it takes
# whatever tokenizer_config.json says.
_GENERIC = (
    "mistral", "ministral", "ministral3", "mistral3", "mixtral", "phi3", "granite", "granitemoe",
    "granitemoehybrid", "granitemoeshared", "ernie4_5", "ernie4_5_moe", "glm", "glm4", "minicpm3",
    "olmo2", "olmo3", "stablelm", "nemotron", "hyperclovax", "internlm2", "internlm3", "glm4v",
    "iquestcoder", "gpt_bigcode",
    "glmasr", "got_ocr2", "llava", "llava_next", "minicpm_ocr", "minicpmv4_6", "minicpmv4_7",
    "omniasr", "paddleocr_vl", "smolvlm", "vipllava", "voxtral",
)  # fmt: skip
_QWEN2 = (
    "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next", "qwen2_vl", "qwen2_5_vl", "qwen3_vl",
    "audioflamingo3", "fun_asr_nano", "hunyuan_vl", "internvl", "lighton_ocr",
    "moss_transcribe_diarize", "ovis2", "qianfan_ocr", "qwen2_5_omni", "qwen2_audio", "qwen3_asr",
)  # fmt: skip
_GPT2 = (
    "starcoder2", "jais2", "phi", "hyperclovax_vision_v2", "gptj", "codegen", "gpt2", "gpt_neo",
    "opt",
)  # fmt: skip
_CLASSES: dict[str, str] = {
    **dict.fromkeys(
        ("gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text"), "GemmaTokenizer"
    ),
    **dict.fromkeys(_QWEN2, "Qwen2Tokenizer"),
    **dict.fromkeys(("cohere", "cohere2", "aya_vision"), "CohereTokenizer"),
    "idefics2": "LlamaTokenizer",
    **dict.fromkeys(("gpt_neox", "mamba2", "olmo", "olmoe"), "GPTNeoXTokenizer"),
    **dict.fromkeys(_GPT2, "GPT2Tokenizer"),
    **dict.fromkeys(
        ("qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"), "Qwen3_5Tokenizer"
    ),
    **dict.fromkeys(_GENERIC, "TokenizersBackend"),
}
_ALWAYS = (
    "qwen2", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "hyperclovax_vision_v2", *_GENERIC,
)  # fmt: skip


def sibling(tokenizer: Path, name: str) -> Path:
    """The path of the file `name` with the same prefix as `tokenizer`; it need not exist."""
    its_own = tokenizer.name.endswith(TOKENIZER)
    prefix = tokenizer.name.removesuffix(TOKENIZER) if its_own else ""
    return tokenizer.with_name(f"{prefix}{name}")


def beside(program: Path, name: str) -> Path:
    """The path of the program `program`'s own file `name`, such as a copy of a tokenizer."""
    return program.with_name(f"{program.stem}.{name}")


def require_tokenizer(path: Path | str) -> None:
    """Raise `InputError` unless the file `path` can be opened."""
    try:
        Path(path).open("rb").close()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the model's tokenizer.json") from None
    except IsADirectoryError:
        meant = tokenizer_in(Path(path)) or "the model's tokenizer.json"
        raise InputError(f"{path}: is a folder; give {meant}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # its name has a null character
        raise InputError(f"{path}: is not a tokenizer.json: {error}") from error


def find_tokenizer(model: Path | str, *folders: Path | str) -> Path:
    """Find the tokenizer of a program: a tokenizer.json or another tokenizer file.

    Args:
        model: The program; its own tokenizer is `<stem>.tokenizer.json` beside it, or else the one
            in its folder.
        folders: Other folders to search, in order.

    Raises:
        InputError: There is none.
    """
    model = Path(model)
    own = beside(model, TOKENIZER)
    if own.is_file():
        return own
    for folder in (model.parent, *map(Path, folders)):
        if file := tokenizer_in(folder):
            return file
    elsewhere = "".join(f", nor in {folder}" for folder in folders)
    raise InputError(
        f"{model}: no tokenizer beside it ({own.name} or tokenizer.json){elsewhere}; "
        "copy the model's tokenizer.json there"
    )


def chosen_tokenizer(given: Path | str | None, model: Path | str, *folders: Path) -> Path:
    """The tokenizer.json `given` as --tokenizer, or else the result of `find_tokenizer`.

    Raises `InputError` if there is none.
    """
    if given is not None:
        return Path(given)
    try:
        return find_tokenizer(model, *folders)
    except InputError as error:
        raise InputError(f"{error}, or give one as --tokenizer") from error


def tokenizer_in(folder: Path) -> Path | None:
    """The tokenizer file in `folder`: tokenizer.json, or else another form; None if there is
    none."""
    return next((folder / name for name in _FORMS if (folder / name).is_file()), None)


def tokenizer_files_in(folder: Path) -> list[Path]:
    """The files in `folder` that define its tokenizer; empty if there is none."""
    tokenizer = tokenizer_in(folder)
    return [] if tokenizer is None else files_of(tokenizer)


def files_of(tokenizer: Path) -> list[Path]:
    """`tokenizer` and the files beside it that define it."""
    named = [sibling(tokenizer, name) for name in _BESIDE]
    if tokenizer.name in _FORMS[1:]:
        named += [sibling(tokenizer, name) for name in (MERGES, "config.json")]
    more = _more_templates(tokenizer.parent) if tokenizer.name in _FORMS else []
    return [tokenizer, *(file for file in named if file.is_file()), *more]


def tokenizer_class(tokenizer: Path, config: dict[str, Any]) -> str:
    """The class that transformers' AutoTokenizer chooses for `tokenizer`, whose
    tokenizer_config.json is `config`; an empty string if no file says."""
    file = sibling(tokenizer, "config.json")
    fields = read_object(file) if file.is_file() else {}
    model_type = str(fields.get("model_type"))
    stated = config.get("tokenizer_class") or fields.get("tokenizer_class")
    if model_type in _ALWAYS or not isinstance(stated, str):
        return _CLASSES.get(model_type, "")
    return stated.removesuffix("Fast")


def read_config_of(tokenizer: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the settings in the files beside `tokenizer`, merged into one tokenizer_config.json; the
    tokens of added_tokens.json, as an `added_tokens_decoder`).

    Raises `InputError` if one is damaged.
    """
    read = [
        read_object(file) if (file := sibling(tokenizer, name)).is_file() else {}
        for name in (CONFIG, _SPECIAL, _ADDED, _PROCESSOR, _PROCESSOR_CONFIG)
    ]
    config, special, added, processor, older = read
    added = with_flags(added, config, special)
    config = with_special_tokens_map(config, special)
    templates = _templates_in_files(tokenizer)
    of_processor = older.get("chat_template") or processor.get("chat_template")
    if not templates and not config.get("chat_template") and of_processor:
        config["chat_template"] = of_processor
    if templates.keys() == {"default"}:
        config["chat_template"] = templates["default"]
    elif templates:
        config["chat_template"] = [
            {"name": name, "template": template} for name, template in templates.items()
        ]
    return config, added


def _templates_in_files(tokenizer: Path) -> dict[str, str]:
    file = sibling(tokenizer, _TEMPLATE)
    templates = {"default": _text(file)} if file.is_file() else {}
    if tokenizer.name in _FORMS:
        templates |= {more.stem: _text(more) for more in _more_templates(tokenizer.parent)}
    return templates


def _more_templates(folder: Path) -> list[Path]:
    return entries(folder / _MORE_TEMPLATES, "*.jinja")


def _text(template: Path) -> str:
    refuse_stand_in(template)
    try:
        return template.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"{template}: cannot be read as UTF-8 text: {error}; download it again, or save it in "
            "UTF-8"
        ) from error


@contextmanager
def written_beside(
    program: Path, write: Callable[[Path], list[Path]]
) -> Iterator[dict[Path, Path]]:
    """The files that `write(folder)` writes and returns, as `program`'s own: they appear beside it
    once the block ends well, and until then each is where its value says."""
    with TemporaryDirectory(prefix="quatrain.") as made:
        copies = {beside(program, file.name): file for file in write(Path(made))}
        with whole_copies(copies):
            yield copies


def copies_for(program: Path, source: Path) -> dict[Path, Path]:
    """`program`'s own tokenizer files, each with the one beside the program `source` that it is to
    be a copy of; those that are that file already are left out."""
    own = beside(source, TOKENIZER).is_file()
    copies = {}
    for name in (TOKENIZER, *_BESIDE):
        original = beside(source, name) if own else source.with_name(name)
        target = beside(program, name)
        if original.is_file() and target.resolve() != original.resolve():
            copies[target] = original
    return copies
