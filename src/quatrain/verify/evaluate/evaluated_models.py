"""What can be evaluated: a program on some runtime, or a checkpoint run eagerly."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quatrain.arithmetic import VULKAN_ARITHMETIC, VULKAN_OF_ONE_ROW, Arithmetic
from quatrain.backbone.config import BackboneConfig
from quatrain.checkpoint.files.hub import local_path
from quatrain.checkpoint.open import is_program, is_quantized, open_checkpoint, open_float_model
from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.program import Program, open_program
from quatrain.program.edit.all_position_logits import give_all_position_logits
from quatrain.program.edit.retarget import retarget
from quatrain.program.inspect.call_shapes import longest_call
from quatrain.runtime.load import has_8da4w, is_vulkan, load_runner, require_tokens_to_logits
from quatrain.runtime.runner import NamedRunner
from quatrain.tokenizer import Tokenizer, chosen_tokenizer
from quatrain.verify.eager import load_eager
from quatrain.verify.evaluate.side_by_side import (
    backbone_side_by_side,
    float_side_by_side,
    rows_at_once,
)
from quatrain.verify.evaluate.windows import WINDOW, AllPositionLogits

Regime = Literal["prefill", "decode"]


@dataclass(frozen=True)
class EvaluatedModel:
    """A model that was looked at but not loaded yet.

    `beside`: a path beside which its tokenizer lies, unless `own_tokenizer` gives it. `context` and
    `window`: tokens that its cache holds and that one call may have. `load` gives a runner.

    An 8da4w model on Vulkan computes a prompt otherwise than tokens one by one
    (`quatrain.arithmetic`): `regime` says which of the two the runner computes a text in, and
    `load_decode` gives one for the other. Both are None if there is no difference.
    """

    path: Path
    beside: Path
    vocab_size: int
    context: int
    window: int
    load: Callable[[], NamedRunner]
    regime: Regime | None = None
    load_decode: Callable[[], NamedRunner] | None = None
    own_tokenizer: Callable[[], Tokenizer] | None = None

    def read_tokenizer(self, given: Path | str | None) -> Tokenizer:
        """The tokenizer.json `given`, or its own. Raises `InputError` if there is none."""
        if given is None and self.own_tokenizer is not None:
            return self.own_tokenizer()
        return Tokenizer.load(chosen_tokenizer(given, self.beside))


def is_float(path: Path) -> bool:
    """Whether it is a model in floating point."""
    return not is_program(path) and not is_quantized(local_path(path))


def open_any_evaluated_model(
    path: Path,
    device: str,
    emulate: str | None,
    scheme: Scheme,
    command: str,
    arithmetic: Arithmetic = VULKAN_ARITHMETIC,
    side_by_side: bool = False,
) -> EvaluatedModel:
    """As `open_evaluated_model`, and `open_evaluated_float_model` for a floating-point model.

    `side_by_side`: a checkpoint reads texts side by side, in less time. Otherwise it reads them
    in the windows that a program reads, and so rounds as that on the reference does.
    """
    if is_float(path):
        return open_evaluated_float_model(path, command)
    if side_by_side and not is_program(path):
        return _checkpoint(path, scheme, command, arithmetic, side_by_side)
    return open_evaluated_model(path, device, emulate, scheme, command, arithmetic)


def open_evaluated_model(
    path: Path,
    device: str,
    emulate: str | None,
    scheme: Scheme,
    command: str,
    arithmetic: Arithmetic = VULKAN_ARITHMETIC,
) -> EvaluatedModel:
    """`device` and `emulate` are for a program, `scheme` is for a checkpoint; `arithmetic` is that
    of a Vulkan program or a checkpoint.

    Raises `InputError` if `path` is neither, or does not go from tokens to logits, which `command`
    needs.
    """
    if not is_program(path):
        return _checkpoint(path, scheme, command, arithmetic)
    return _program(path, device, emulate, command, arithmetic)


def open_evaluated_float_model(path: Path, command: str) -> EvaluatedModel:
    """A model in floating point.

    Raises `InputError` as `open_float_model` does, and if it does not go from tokens to logits.
    """
    model = open_float_model(path)
    _require_both_ends(path, model.config, command)

    def tokenizer() -> Tokenizer:
        found = model.tokenizer()
        if found is None:
            raise InputError(
                f"{path}: has no tokenizer, and {command} needs the first model's; give a "
                "tokenizer.json (--tokenizer), or name another model first"
            )
        return found

    return EvaluatedModel(
        path=path,
        beside=path,
        vocab_size=model.config.vocab_size,
        context=model.config.max_seq_len,
        window=rows_at_once(model.config.vocab_size),
        load=lambda: float_side_by_side(model),
        own_tokenizer=tokenizer,
    )


def _require_both_ends(path: Path, config: BackboneConfig, command: str) -> None:
    if not (config.apply_embedding and config.apply_output):
        part = "output" if config.apply_embedding else "embedding"
        raise InputError(
            f"{path}: has no {part} layer (apply_{part} is false); {command} takes models from "
            "tokens to logits (others run from Python, quatrain.backbone)"
        )


def _checkpoint(
    path: Path, scheme: Scheme, command: str, arithmetic: Arithmetic, side_by_side: bool = False
) -> EvaluatedModel:
    opened = open_checkpoint(path)
    config, source = opened.config, opened.source
    _require_both_ends(path, config, command)
    two_regimes = scheme == Scheme.DYNAMIC_INT8 and _has_two_regimes(arithmetic)
    runner_of = backbone_side_by_side if side_by_side else AllPositionLogits
    name = f"eager, {scheme}" + f" as on {arithmetic.name}" * (arithmetic != VULKAN_ARITHMETIC)
    return EvaluatedModel(
        path=path,
        beside=source / "model.safetensors" if source.is_dir() else source,
        vocab_size=config.vocab_size,
        context=config.max_seq_len,
        window=rows_at_once(config.vocab_size) if side_by_side else WINDOW,
        load=lambda: runner_of(load_eager(path, scheme, arithmetic), name),
        regime="prefill" if two_regimes else None,
        load_decode=(
            (lambda: runner_of(load_eager(path, Scheme.WEIGHT_ONLY), name)) if two_regimes else None
        ),
    )


def _program(
    path: Path,
    device: str,
    emulate: str | None,
    command: str,
    arithmetic: Arithmetic,
) -> EvaluatedModel:
    program = open_program(path)
    metadata = program.metadata
    require_tokens_to_logits(path, metadata, command)
    missing = {"get_vocab_size", "get_max_context_len"} - metadata.keys()
    if missing:
        raise InputError(f"{path}: lacks the constant method {min(missing)}, which {command} needs")
    longest = int(metadata.get("get_max_seq_len", 1)) if metadata.get("enable_dynamic_shape") else 1
    regime: Regime | None = None
    if is_vulkan(program):
        longest = min(longest, longest_call(program.vulkan))  # less in ExecuTorch's own exports
        in_blocks = give_all_position_logits(program.vulkan) and longest > 1
        if has_8da4w(program) and _has_two_regimes(arithmetic):
            regime = "prefill" if in_blocks else "decode"
    return EvaluatedModel(
        path=path,
        beside=path,
        vocab_size=int(metadata["get_vocab_size"]),
        context=program.context,
        window=min(WINDOW, longest),
        load=lambda: load_runner(program, device, emulate, arithmetic),
        regime=regime,
        load_decode=(
            (lambda: load_runner(_decoding(path), device, emulate, VULKAN_OF_ONE_ROW))
            if regime == "prefill"
            else None
        ),
    )


def _has_two_regimes(arithmetic: Arithmetic) -> bool:
    return arithmetic.quantizes(rows=2) and not arithmetic.quantizes(rows=1)


def _decoding(path: Path) -> Program:
    """The program as it computes one token at a time, for as many at once as it takes."""
    program = open_program(path)
    retarget(program, Scheme.WEIGHT_ONLY)
    give_all_position_logits(program.vulkan)
    return program
