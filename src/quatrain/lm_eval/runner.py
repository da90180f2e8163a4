"""What lm-eval asks of a model: the logits of texts, and a text that goes on token by token."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from quatrain.backbone.build import build_backbone
from quatrain.backbone.model import Backbone
from quatrain.checkpoint.open import is_program, open_float_model
from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.runtime.runner import Runner
from quatrain.verify.eager import load_eager
from quatrain.verify.evaluate.evaluated_models import (
    EvaluatedModel,
    is_float,
    open_any_evaluated_model,
)
from quatrain.verify.evaluate.side_by_side import backbone_side_by_side
from quatrain.verify.evaluate.windows import window_logits

Text = Sequence[int]


class BackboneRunner:
    """A checkpoint or a floating-point model, all of it in memory."""

    def __init__(self, backbone: Backbone, context: int):
        self._backbone, self._context = backbone, context

    def logits(self, texts: Sequence[Text], counts: Sequence[int]) -> Iterator[torch.Tensor]:
        """Of each text the logits [count, V] after the last `count` of its tokens."""
        runner = backbone_side_by_side(self._backbone, "")
        runner.expect(texts)
        for text, count in zip(texts, counts, strict=True):
            runner.reset()
            last = torch.tensor([list(text[-count:])])
            yield runner.forward(last, torch.tensor([len(text) - count]))[0]

    def decoder(self) -> Runner:
        """What goes on with a text of up to the whole context."""
        self._backbone.make_room(1, self._context)
        return self._backbone


class ProgramRunner:
    """A program on some runtime."""

    def __init__(self, evaluated: EvaluatedModel):
        self._runner, self._window = evaluated.load(), evaluated.window

    def logits(self, texts: Sequence[Text], counts: Sequence[int]) -> Iterator[torch.Tensor]:
        """Of each text the logits [count, V] after the last `count` of its tokens."""
        for text, count in zip(texts, counts, strict=True):
            yield torch.cat(list(window_logits(self._runner, text, self._window)))[-count:]

    def decoder(self) -> Runner:
        """What goes on with a text of up to the whole context."""
        return self

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor, /) -> torch.Tensor:
        """As `Runner`: the program may have been made to give every token's logits."""
        logits = self._runner.forward(tokens, input_pos)
        return logits.reshape(-1, logits.shape[-1])[-1:]

    def reset(self) -> None:
        """Forget the context."""
        self._runner.reset()


def open_lm_eval_runner(
    path: Path, scheme: Scheme | None, runtime: str | None
) -> tuple[EvaluatedModel, BackboneRunner | ProgramRunner]:
    """What is known of the model, and what runs it; the arguments are those of `QuatrainLM`.

    Raises `InputError` if the model or an argument cannot be used.
    """
    if runtime is not None and not is_program(path):
        raise InputError(f"runtime={runtime} is for programs; {path} runs eagerly, leave it out")
    if scheme is not None and (is_program(path) or is_float(path)):
        raise InputError(
            f"scheme={scheme} is for checkpoints, and {path} is none; a program has its own, "
            "which `quatrain retarget` changes"
        )
    chosen = scheme or Scheme.DYNAMIC_INT8
    evaluated = open_any_evaluated_model(path, runtime or "auto", None, chosen, "lm-eval")
    if is_program(path):
        return evaluated, ProgramRunner(evaluated)
    if is_float(path):
        model = open_float_model(path)
        backbone = build_backbone(model.config, model.tensors)
    else:
        backbone = load_eager(path, chosen)
    return evaluated, BackboneRunner(backbone, evaluated.context)
