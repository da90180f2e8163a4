"""Measures the int8 activations of each int4 linear on a text.

It shows an engineer which layers a defect of the kernel would hit (negative zero points are
what `dq8ca-zp-binding-float` turns into garbage) and where outliers cost int8 its resolution.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from quatrain.arithmetic import VULKAN_ARITHMETIC
from quatrain.checkpoint.open import is_program
from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.linear.affine import choose_token_qparams
from quatrain.linear.int4 import Int4Linear
from quatrain.program import open_program
from quatrain.program.inspect.call_shapes import longest_call
from quatrain.program.inspect.linears import find_linears
from quatrain.runtime.calls.token_ids import check_token_ids
from quatrain.runtime.load import require_tokens_to_logits
from quatrain.runtime.reference import ReferenceRunner
from quatrain.stages import Stages
from quatrain.tokenizer import Tokenizer, chosen_tokenizer
from quatrain.verify.eager import load_eager
from quatrain.verify.evaluate.evaluated_models import open_evaluated_model

DEFAULT_TEXT = (
    "Free software is a matter of liberty, not price. To install a package, open a terminal, "
    "type apt install and the name of the package, and press Enter. The sea was calm that "
    "morning, and 3 ships lay at anchor; by 10:45 the first of them had set sail for Lisbon."
)


@dataclass(frozen=True)
class ActivationStatistics:
    """The input of one linear over some tokens, as asymmetric int8 per token sees it.

    Shares are of 1. `negative_zero_points`: of tokens. `outlier`: the largest magnitude over the
    root mean square. `to_zero`: of values that round to the zero point, although they are not zero.
    `quantized_in_prefill`: whether a phone rounds this input to int8 in 8da4w: the output layer,
    which sees one row, never; nor any linear in decode (`quatrain.arithmetic`).
    """

    name: str
    negative_zero_points: float
    lowest: float
    highest: float
    outlier: float
    to_zero: float
    quantized_in_prefill: bool


def diagnose_activations(
    model: Path,
    text: str | None = None,
    stages: Stages | None = None,
    tokenizer: Path | None = None,
) -> list[ActivationStatistics]:
    """The statistics of each int4 linear of `model`, a program or a checkpoint, on `text`, or on as
    much of `DEFAULT_TEXT` as its context holds.

    `tokenizer`: a tokenizer.json; None is the one beside the model. A checkpoint runs eagerly as
    8da4w, a program on the CPU reference in its own scheme. Raises `InputError` if the text is
    empty or longer than the context.
    """
    look = _program_inputs if is_program(model) else _eager_inputs
    inputs = look(model, text, stages or Stages(), tokenizer)
    return [activation_statistics(name, x) for name, x in inputs.items()]


@torch.inference_mode()
def activation_statistics(name: str, x: torch.Tensor) -> ActivationStatistics:
    """The statistics of a linear `name` with input x [..., K]."""
    x = x.reshape(-1, x.shape[-1]).float()
    scale, zero = choose_token_qparams(x, torch.finfo(torch.float32).eps)
    integers = torch.round(x * (1.0 / scale[:, None])) + zero[:, None]
    return ActivationStatistics(
        name=name,
        negative_zero_points=float((zero < 0).float().mean()),
        lowest=float(x.min()),
        highest=float(x.max()),
        outlier=float(x.abs().max() / x.square().mean().sqrt().clamp(min=1e-30)),
        to_zero=float(((integers == zero[:, None]) & (x != 0)).float().mean()),
        quantized_in_prefill=VULKAN_ARITHMETIC.quantizes(len(x)),
    )


def _eager_inputs(
    path: Path, text: str | None, stages: Stages, tokenizer: Path | None
) -> dict[str, torch.Tensor]:
    with stages("load the model"):
        evaluated = open_evaluated_model(path, "auto", None, Scheme.DYNAMIC_INT8, "diagnose")
        loaded = Tokenizer.load(chosen_tokenizer(tokenizer, evaluated.beside))
        tokens = _encode(loaded, text, evaluated.context, evaluated.vocab_size)
        backbone = load_eager(path)
    inputs: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable:
        return lambda _module, given, _result: inputs.__setitem__(name, given[0].clone())

    for name, module in backbone.named_modules():
        if isinstance(module, Int4Linear):
            module.register_forward_hook(keep(name))
    with stages("run the text"), torch.inference_mode():
        backbone(torch.tensor([tokens]), torch.tensor([0]))
    return inputs


def _program_inputs(
    path: Path, text: str | None, stages: Stages, tokenizer: Path | None
) -> dict[str, torch.Tensor]:
    with stages("load the model"):
        program = open_program(path)
        require_tokens_to_logits(path, program.metadata, "diagnose")
        graph = program.vulkan
        longest = min(program.context, longest_call(graph))
        vocab_size = int(program.metadata.get("get_vocab_size", 1 << 30))
        loaded = Tokenizer.load(chosen_tokenizer(tokenizer, path))
        tokens = _encode(loaded, text, longest, vocab_size)
        runner = ReferenceRunner(program)
    readers: dict[int, list[str]] = {}
    for linear in find_linears(graph):
        if linear.group_size is not None:
            x = graph.operators[linear.operator].named_args["x"]
            readers.setdefault(x, []).append(linear.name)
    inputs: dict[str, torch.Tensor] = {}

    def observe(value_id: int, computed: torch.Tensor) -> torch.Tensor:
        inputs.update(dict.fromkeys(readers[value_id], computed.clone()))
        return computed

    with stages("run the text"):
        runner.trace(readers, observe, torch.tensor([tokens]), torch.tensor([0]))
    return inputs


def _encode(tokenizer: Tokenizer, text: str | None, context: int, vocab_size: int) -> list[int]:
    tokens = tokenizer.encode(DEFAULT_TEXT)[:context] if text is None else tokenizer.encode(text)
    check_token_ids(tokens, vocab_size, tokenizer.model.id_to_token)
    if not tokens:
        raise InputError("the text (--text) has no tokens; there is nothing to run")
    if len(tokens) > context:
        raise InputError(
            f"the text (--text) has {len(tokens)} tokens, and the model reads {context} in the one "
            "call that is looked at; give a shorter one"
        )
    return tokens
