"""The calibration text of methods that use activations."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from quatrain.backbone.build import build_backbone
from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.layers.kv_cache import cached_width
from quatrain.backbone.pruned_vocabulary import known_rows
from quatrain.checkpoint.float_model import FloatModel
from quatrain.errors import InputError, UnknownTokenizer, require_several
from quatrain.int4 import Scheme
from quatrain.quantize.generated_text import continue_texts
from quatrain.stages import Stages, installed_memory_bytes
from quatrain.text_files import read_text
from quatrain.tokenizer import Tokenizer

DEFAULT_TEXT = Path(__file__).with_name("calibration.txt")
LENGTH = 256  # tokens of a text, each read from an empty context
MOST_TOKENS, LEAST_TOKENS = 15_360, 1_024
_USUAL_SELF_GENERATED = 8_192
_SEED = 0


@dataclass(frozen=True)
class Calibration:
    """The calibration text of methods that use activations.

    Attributes:
        files: Text files in UTF-8; an empty tuple means the text that comes with Quatrain.
        self_generated: Instead of a text, the number of tokens for the model to generate.
        scheme: The activation scheme to optimize for; None means both.
    """

    files: tuple[Path | str, ...] = ()
    self_generated: int | None = None
    scheme: Scheme | None = None

    def __post_init__(self) -> None:
        require_several("files", self.files)

    def tokens(
        self, model: FloatModel, tokenizer: Path | None, stages: Stages, most: int | None = None
    ) -> torch.Tensor:
        """Rows of the embedding, int64 [texts, T], at most `most` tokens of a longer text;
        `tokenizer` replaces the model's own. Raises `InputError` if there are none."""
        if self.files and self.self_generated is not None:
            raise InputError(
                "--calibration and --self-generated exclude each other; leave one of them out"
            )
        if self.self_generated is None:
            return tokens_of_files(model, self.files, tokenizer, most)
        return tokens_of_itself(model, self.self_generated, stages)

    @staticmethod
    def usual(model: FloatModel, tokenizer: Path | None) -> "Calibration | None":
        """The default: the text that comes with Quatrain; text that `model` generates, if it has no
        tokenizer; None if it can neither read nor generate a text."""
        if not model.config.apply_embedding:
            return None
        if tokenizer or _has_tokenizer(model):
            return Calibration()
        return Calibration(self_generated=_USUAL_SELF_GENERATED) if writes(model.config) else None


def tokens_of_files(
    model: FloatModel,
    files: Sequence[Path | str],
    tokenizer: Path | None = None,
    most: int | None = None,
) -> torch.Tensor:
    """The text of `files`, or the one that comes with Quatrain, as rows of the embedding.

    int64 [texts, T]; of a longer text `most` tokens (None is MOST_TOKENS), in pieces spread over
    it. If the tokenizer puts a token before a text, each piece begins with it. Raises `InputError`
    if a file is not text, there is too little, or the model has no tokenizer.
    """
    words = Tokenizer.load(tokenizer) if tokenizer else _tokenizer(model)
    named = ", ".join(map(str, files)) if files else "the calibration text"
    text = "\n\n".join(read_text(file, "--calibration") for file in files or [DEFAULT_TEXT])
    begin, ids = rows_of_text(model.config, words, text)
    length = min(LENGTH, model.config.max_seq_len)
    if len(ids) < LEAST_TOKENS:
        raise InputError(
            f"{named}: has {len(ids)} tokens, expected at least {LEAST_TOKENS}; give more text "
            "with --calibration, or use --self-generated 8192, or --method rtn"
        )
    texts = (most or MOST_TOKENS) // (length - len(begin))
    return torch.tensor(spread_texts(begin, ids, length, texts))


def rows_of_text(
    config: BackboneConfig, words: Tokenizer, text: str
) -> tuple[list[int], list[int]]:
    """The rows of the embedding for the tokens with which `words` begins a text, and for those of
    `text`; tokens that it has no row for are left out.

    Raises `InputError` if the model's context has no room for more than the first.
    """
    ids = words.encode(text)
    begin = words.begin(ids)
    if len(begin) >= config.max_seq_len:
        raise InputError(
            f"{words.source}: its tokenizer puts {len(begin)} tokens before a text, and the "
            f"model's context has only {config.max_seq_len} tokens (max_seq_len); give the "
            "model's own tokenizer with --tokenizer"
        )
    return known_rows(config, begin), known_rows(config, ids[len(begin) :])


def spread_texts(begin: list[int], ids: list[int], length: int, most: int) -> list[list[int]]:
    """At most `most` pieces of `ids`, spread over them, as texts of `length` tokens that each begin
    with `begin`."""
    own = length - len(begin)
    count = len(ids) // own
    kept = min(count, most)
    starts = [index * count // kept * own for index in range(kept)]
    return [begin + ids[start : start + own] for start in starts]


def tokens_of_itself(model: FloatModel, count: int, stages: Stages) -> torch.Tensor:
    """`count` tokens that the model generates, int64 [texts, T]: several texts in one batch,
    sampled from its predictions, starting with the token that begins a text, or with any token if
    there is none.

    Raises `InputError` if `count` is too small, or the model does not fit into memory.
    """
    if count < LEAST_TOKENS:
        raise InputError(f"--self-generated {count}: expected at least {LEAST_TOKENS} tokens")
    config = model.config
    if not writes(config):
        raise InputError(
            f"{model.source}: cannot write its own calibration text, because its vocabulary is "
            "pruned or it has no output layer; use --calibration"
        )
    length = min(LENGTH, config.max_seq_len)
    texts = max(1, count // length)
    _require_memory_to_write(model, texts, length)
    backbone = build_backbone(config, model.tensors, max_seq_len=length)
    generator = torch.Generator().manual_seed(_SEED)
    begin = model.params.get("bos_idx")
    first = torch.randint(config.vocab_size, (texts, 1), generator=generator)
    if begin is not None and begin < config.vocab_size:
        first = torch.full_like(first, begin)
    with stages("write the calibration text") as advance:
        return continue_texts(backbone, first, length, generator, advance)


def _require_memory_to_write(model: FloatModel, texts: int, length: int) -> None:
    """Refuse, before any work, what this machine's memory cannot hold: about what is needed."""
    config = model.config
    floats = sum(prod(tensor.shape) for tensor in model.tensors.stored.values())
    floats += 2 * texts * length * cached_width(config)
    floats += 3 * texts * config.vocab_size  # logits, and what is drawn by
    there = installed_memory_bytes()
    if (needed := 4 * floats) > there:
        raise InputError(
            f"{model.source}: needs about {needed / 1e9:.0f} GB of memory to write its own "
            f"calibration text with the whole model in float32, and this machine has "
            f"{there / 1e9:.0f}; give a text with --calibration, which needs one layer at a time "
            "(and --tokenizer, if the model has none), or use --method rtn"
        )


def writes(config: BackboneConfig) -> bool:
    """Whether the model's output vocabulary equals its input vocabulary."""
    return not (config.input_prune_map or config.output_prune_map) and config.apply_output


def _has_tokenizer(model: FloatModel) -> bool:
    """Whether it came with a tokenizer that can be read."""
    try:
        return model.tokenizer() is not None
    except UnknownTokenizer:
        return False


def _tokenizer(model: FloatModel) -> Tokenizer:
    try:
        tokenizer = model.tokenizer()
    except UnknownTokenizer as error:
        raise InputError(f"{error}; or use --self-generated 8192, or --method rtn") from error
    if tokenizer is None:
        raise InputError(
            f"{model.source}: has no tokenizer, which the calibration text needs; use "
            "--self-generated 8192, or --method rtn"
        )
    return tokenizer
