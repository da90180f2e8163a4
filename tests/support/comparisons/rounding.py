"""Whether a model computes what another does but for rounding, on any processor.

Under 8da4w a bit more or less in an activation that lies between two int8 steps makes it the other
step, which moves logits by up to some hundredths; where no step falls otherwise they differ by a
millionth or so. On which texts one does depends on the processor. So texts are drawn until some
came out equal, and for each that did not the expected model must show the step: off by a few
float32 digits at its embedding, its own logits move as far.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import torch

from quatrain.backbone.model import Backbone
from quatrain.runtime.reference import ReferenceRunner
from quatrain.runtime.runner import Runner
from quatrain.verify.verify import VerifyReport

ROUNDING = 1e-5  # relative error of a call's logits where no step falls otherwise
NUDGE = 2.0**-19  # of each element of the embedding: some times what a runtime rounds by
NUDGES = 64  # so many, that one of them moves every step that rounding moves
EQUAL, TEXTS = 2, 16  # so many of at most so many texts are equal

Calls = Sequence[tuple[int, int]]  # the first and the end of the tokens that each call takes
Nudgeable = Backbone | ReferenceRunner


def assert_equal_but_for_rounding(
    runner: Runner,
    expected: Nudgeable,
    draw: Callable[[torch.Generator], torch.Tensor],
    calls: Calls,
) -> None:
    """Compare what each of `calls` gives, on texts [1, T] or embeddings [1, T, dim] from `draw`."""
    generator = torch.Generator().manual_seed(0)
    errors: list[float] = []
    for _ in range(TEXTS):
        text = draw(generator)
        error = largest_error(called(runner, text, calls), called(expected, text, calls))
        errors.append(error)
        if sum(error < ROUNDING for error in errors) == EQUAL:
            return
        assert error < ROUNDING or rounding_explains(error, expected, text, calls), (error, text)
    raise AssertionError(f"texts are hardly ever equal: errors {errors}")


def rounding_explains(error: float, model: Nudgeable, text: torch.Tensor, calls: Calls) -> bool:
    """Whether some nudge moves what `model` gives by half of `error`, or by more."""
    generator = torch.Generator().manual_seed(0)
    plain = called(model, text, calls)
    for _ in range(NUDGES):
        with nudged(model, NUDGE, generator):
            if 2 * largest_error(called(model, text, calls), plain) > error:
                return True
    return False


def follows_but_for_rounding(report: VerifyReport, verify: Callable[[], VerifyReport]) -> bool:
    """Whether each probe of each device is as its backbone has it, but for rounding.

    `verify` gives the same report of the reference runtime: where a probe is further off, that one
    must be as far off where all that a probe starts from is off by a few float32 digits.
    """
    worst = max(check.layerwise.worst for check in report.devices)
    if worst < ROUNDING:
        return True
    generator, trace = torch.Generator().manual_seed(0), ReferenceRunner.trace

    def nudged_trace(self: ReferenceRunner, wanted, observe, *inputs):
        def nudge(value_id: int, value: torch.Tensor) -> torch.Tensor:
            return off_by(NUDGE, observe(value_id, value), generator)

        return trace(self, wanted, nudge, *inputs)

    with patch.object(ReferenceRunner, "trace", nudged_trace):
        for _ in range(NUDGES):
            if 2 * max(check.layerwise.worst for check in verify().devices) > worst:
                return True
    return False


def off_by(size: float, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """`x`, every element off by `size` or so, relatively."""
    if not x.is_floating_point():
        return x
    return (x * (1 + size * torch.randn(x.shape, generator=generator))).to(x.dtype)


@torch.no_grad()
def called(runner: Runner, text: torch.Tensor, calls: Calls) -> list[torch.Tensor]:
    """What `runner` gives for each call, from an empty context."""
    runner.reset()
    return [runner.forward(text[:, start:end], torch.tensor([start])) for start, end in calls]


def largest_error(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """Of the calls: the largest difference over the largest magnitude, of what is finite."""
    errors = []
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        finite = torch.isfinite(theirs)  # a pruned output gives -inf for what it left out
        assert torch.equal(torch.isfinite(ours), finite)
        ours, theirs = ours[finite], theirs[finite]
        errors.append(float((ours - theirs).abs().max() / theirs.abs().max()))
    return max(errors)


@contextmanager
def nudged(model: Nudgeable, size: float, generator: torch.Generator) -> Iterator[None]:
    """Every element that the embedding of `model` gives, or that it is given in its place, is off
    by `size` or so, relatively."""

    def nudge(x: torch.Tensor) -> torch.Tensor:
        return off_by(size, x, generator)

    if isinstance(model, ReferenceRunner):
        rows = {op.out for op in model.graph.operators if "embedding" in op.kind}
        place, forward = model, partial(model.trace, rows, lambda _id, given: nudge(given))
    elif model.tok_embeddings is None:
        given, place = model.forward, model
        forward = lambda x, input_pos: given(nudge(x), input_pos)  # noqa: E731
    else:
        place, look_up = model.tok_embeddings, model.tok_embeddings.forward
        forward = lambda tokens: nudge(look_up(tokens))  # noqa: E731
    with patch.object(place, "forward", forward):
        yield
