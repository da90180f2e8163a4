"""The training itself: steps of Adam on the divergence of what the student predicts from what the
teacher does."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.quantize.distill.recipe import Recipe
from quatrain.quantize.distill.saved_state import load, save
from quatrain.quantize.distill.student import Student
from quatrain.quantize.distill.teacher import Teacher
from quatrain.stages import return_freed_memory

_SEED = 0
_LOGITS_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 27}  # of float32: 17 MB, and half a GB
_SECONDS_BETWEEN_SAVES = 60.0
_SMOOTHED = 0.9  # of the divergence that is shown


class Training:
    """`student` learns what `teacher` predicts on `texts` int64 [texts, T].

    `scheme`: None is both: what is computed together alternates between the two. `file` keeps how
    far it has come; the same follows from there as without an interruption.
    """

    def __init__(
        self,
        student: Student,
        teacher: Teacher,
        texts: torch.Tensor,
        scheme: Scheme | None,
        file: Path,
        recipe: Recipe,
    ) -> None:
        self.student, self.teacher, self.texts = student, teacher, texts
        self.scheme, self.file, self.recipe = scheme, file, recipe
        scales, vectors = student.factors()
        groups = [
            {"params": scales, "rate": recipe.scale_rate},
            {"params": vectors, "rate": recipe.vector_rate},
            {"params": student.latents(), "rate": recipe.integer_rate},
        ]
        groups = [group for group in groups if group["params"]]
        self._factors = scales + vectors
        self._learned = self._factors + student.latents()
        # Gradients are far smaller than Adam's usual epsilon.
        self._optimizer = torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.95), eps=1e-12)
        self.done, self.divergence = 0, math.nan

    def run(self, advance: Callable[[float, str], None]) -> None:
        """Take the steps that are not done yet; `advance` hears of each.

        Raises `InputError` if the divergence is not finite, `OSError` if the disk is full.
        """
        self._resume()
        first, saved = self.done, time.monotonic()
        while self.done < self.recipe.steps:
            found = self._step(self.done)
            if not math.isfinite(found) or not self._is_finite():
                raise InputError(
                    f"--method distill: the divergence is {found} at step {self.done + 1}: the "
                    "model overflows on the calibration text; use another text, or --method gptq"
                )
            shown = found if math.isnan(self.divergence) else self.divergence
            self.divergence = _SMOOTHED * shown + (1 - _SMOOTHED) * found
            self.done += 1
            # The steps of this attempt, for the estimate of the remaining time.
            part = (self.done - first) / (self.recipe.steps - first)
            advance(part, f"divergence {self.divergence:.4f}")
            if time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
                self._save()
                saved = time.monotonic()
        self._save()

    def _step(self, step: int) -> float:
        """One step of the optimizer; returns the mean divergence, in nats a token."""
        for group in self._optimizer.param_groups:
            group["lr"] = group["rate"] * self.recipe.rate(step)
        total = 0.0
        picked = self._picked(step)
        for index, part in enumerate(picked.split(self.recipe.at_once)):
            total += self._learn(part, self._int8(step + index)) / len(picked)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return_freed_memory()  # or what the rounding before has left in the heap stays beside
        return total / self.texts.shape[1]

    def _learn(self, part: torch.Tensor, int8: bool) -> float:
        """Add the gradients of some texts; returns their summed divergence."""
        hidden = self.student.hidden(self.texts[part], int8)
        # Of the logits only some are in memory, so their gradients stop here first.
        seen = hidden.detach().requires_grad_()
        exact = self.teacher.hidden[part]
        tokens = self.recipe.texts * self.texts.shape[1]
        total = 0.0
        logits = part.numel() * self.texts.shape[1] * self.student.backbone.config.vocab_size
        count = -(-logits // _LOGITS_AT_ONCE[seen.device.type])
        parts = (both.flatten(0, 1).chunk(count) for both in (seen, exact))
        with self.student.held_output():
            for rows, wished in zip(*parts, strict=True):
                divergence = self._divergence(rows, wished)
                (divergence / tokens).backward()
                total += divergence.item()
        hidden.backward(seen.grad)
        return total

    def _divergence(self, rows: torch.Tensor, wished: torch.Tensor) -> torch.Tensor:
        """Of the student's predictions from hidden states [N, dim], summed."""
        student = F.log_softmax(self.student.backbone.logits(rows), -1)
        with torch.no_grad():
            teacher = F.log_softmax(self.teacher.logits(wished.to(rows.device)), -1)
        return F.kl_div(student, teacher, reduction="sum", log_target=True)

    def _is_finite(self) -> bool:
        return all(bool(torch.isfinite(factor).all()) for factor in self._factors)

    def _int8(self, turn: int) -> bool:
        return turn % 2 == 1 if self.scheme is None else self.scheme == Scheme.DYNAMIC_INT8

    def _picked(self, step: int) -> torch.Tensor:
        """Which texts a step reads: all are read once before any is read again."""
        count, each = len(self.texts), self.recipe.texts
        places = range(step * each, (step + 1) * each)
        rounds = {place // count for place in places}
        order = {
            index: torch.randperm(count, generator=torch.Generator().manual_seed(_SEED + index))
            for index in rounds
        }
        return torch.stack([order[place // count][place % count] for place in places])

    def _save(self) -> None:
        state = {
            "done": self.done,
            "divergence": self.divergence,
            "learned": [one.detach() for one in self._learned],
            "optimizer": self._optimizer.state_dict(),
        }
        save(state, self.file)

    @torch.no_grad()
    def _resume(self) -> None:
        state = load(self.file)
        if state is None:
            return
        self.done, self.divergence = state["done"], state["divergence"]
        for one, kept in zip(self._learned, state["learned"], strict=True):
            one.copy_(kept)
        self._optimizer.load_state_dict(state["optimizer"])
