"""Computes a program as a hypothesis says: a prompt in few calls, then an answer's tokens.

What follows a prompt is known here, so it is computed many rows at a time, in the arithmetic of
single rows, as which a phone computes it (`quatrain.arithmetic`). Defects strike prompts alone:
those that can be emulated concern calls of two rows or more.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from quatrain.arithmetic import (
    VULKAN_ARITHMETIC,
    VULKAN_OF_ONE_ROW,
    VULKAN_WITHOUT_DOT_PRODUCTS,
    XNNPACK_ARITHMETIC,
    Arithmetic,
)
from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.program import Program, open_program
from quatrain.program.edit.all_position_logits import give_all_position_logits
from quatrain.program.edit.retarget import retarget
from quatrain.program.inspect.linears import find_linears
from quatrain.program.vulkan.linear_kernels import INT4_LINEARS
from quatrain.runtime.load import has_8da4w, is_vulkan, load_runner, require_tokens_to_logits
from quatrain.runtime.reference import ReferenceRunner
from quatrain.runtime.runner import longest_call, parts_of

# What a runtime rounds a linear's output by, relatively.
_NUDGES = {"float16": 2.0**-12, "float32": 2.0**-22}
_ALL = (VULKAN_ARITHMETIC, VULKAN_WITHOUT_DOT_PRODUCTS, XNNPACK_ARITHMETIC)
_SPREAD_ELSEWHERE = 0.05  # nats, where a runtime's rounding cannot be changed to see


class ComputedProgram:
    """The program at `path`, on the CPU.

    `own`: the arithmetic that it was exported for, None if it is not Vulkan's; `arithmetics`: those
    that its weights can be computed in here, none where they are computed as they are.
    """

    def __init__(self, path: Path):
        program = open_program(path)
        require_tokens_to_logits(path, program.metadata, "explain")
        self.path, self.metadata = path, program.metadata
        self.context = program.context
        self.own: Arithmetic | None = None
        self.arithmetics: tuple[Arithmetic, ...] = ()
        self._reference: ReferenceRunner | None = None
        self._rounds_single_rows = False
        self._nudge: Callable[[int, torch.Tensor], torch.Tensor] | None = None
        self._prompt: tuple[list[int], Arithmetic | None, str | None] = [], None, None
        self._answer: list[int] = []  # read after it
        if not is_vulkan(program):
            self._runner, self._many = load_runner(program, "executorch"), False
            self._longest = longest_call(self._runner, self.context)
            return
        self.own = VULKAN_ARITHMETIC if has_8da4w(program) else VULKAN_WITHOUT_DOT_PRODUCTS
        can_be_any = _has_all_arithmetics(program)
        self._many = give_all_position_logits(program.vulkan)
        self._runner = self._reference = ReferenceRunner(program)
        self._longest = longest_call(self._runner, self.context)
        if can_be_any:
            # With XNNPACK's arithmetic a single row is computed twice, and such a program keeps
            # both.
            twice = self._many and self._runner.rewinds
            self.arithmetics = _ALL if twice else _ALL[:2]
        graph = program.vulkan
        self._linears = {one.out for one in graph.operators if one.kind in INT4_LINEARS}
        dtypes = {graph.tensor(out).dtype for out in self._linears}
        self._rounds_by = _NUDGES["float16" if "float16" in dtypes else "float32"]

    def read_prompt(
        self, tokens: Sequence[int], arithmetic: Arithmetic | None, defect: str | None = None
    ) -> torch.Tensor:
        """Read `tokens` from an empty context; the logits [V] after the last of them."""
        self._prompt, self._answer = (list(tokens), arithmetic, defect), []
        self._runner.reset()
        self._compute_as(arithmetic, defect)
        row = self._call(list(tokens), 0)[-1]
        if arithmetic and not arithmetic.quantizes(1):
            arithmetic = VULKAN_OF_ONE_ROW
        self._compute_as(arithmetic, None)
        return row

    def read_answer(self, tokens: Sequence[int], at: int) -> torch.Tensor:
        """Read `tokens` at position `at`, as one call each; the logits [n, V] after each."""
        self._go_back(at)
        self._answer += tokens
        if self._many:
            return self._call(list(tokens), at)
        rows = [self._call([token], at + i)[-1] for i, token in enumerate(tokens)]
        return torch.stack(rows)

    def _go_back(self, at: int) -> None:
        """Go back to position `at` of the context; if the program cannot, read it again."""
        kept = self._answer[: at - len(self._prompt[0])]
        if len(kept) == len(self._answer) or self._runner.rewinds:
            self._answer = kept
            return
        self.read_prompt(*self._prompt)
        if kept:
            self.read_answer(kept, len(self._prompt[0]))

    def spread(self, prompt: Sequence[int], arithmetic: Arithmetic | None) -> float:
        """How far rounding moves a logit after `prompt`, in nats: the root mean square over a row's
        logits, their mean taken out; of all rows that the program gives, the median."""
        if self._reference is None:
            return _SPREAD_ELSEWHERE
        generator = torch.Generator().manual_seed(0)

        def nudge(_id: int, value: torch.Tensor) -> torch.Tensor:
            off = torch.randn(value.shape, generator=generator) * self._rounds_by
            return (value * (1 + off)).to(value.dtype)

        self._compute_as(arithmetic, None)
        self._reference.reset()
        moved = -self._call(list(prompt), 0)
        self._reference.reset()
        self._nudge = nudge
        try:
            moved += self._call(list(prompt), 0)
        finally:
            self._nudge = None
        moved = moved[:, moved.isfinite().all(0)]
        return float(moved.std(-1).median())

    def _compute_as(self, arithmetic: Arithmetic | None, defect: str | None) -> None:
        self._rounds_single_rows = arithmetic is not None and arithmetic.quantizes(1)
        if self._reference and arithmetic:
            self._reference.compute_as(arithmetic, defect)

    @torch.inference_mode()
    def _call(self, tokens: list[int], at: int) -> torch.Tensor:
        if len(tokens) == 1 and self._rounds_single_rows:
            # Programs may choose no int8 parameters for a single row, which no phone's GPU rounds.
            return self._call(tokens * 2, at)[:1]
        rows = []
        for part in parts_of(len(tokens), self._longest):
            inputs = torch.tensor([tokens[part]]), torch.tensor([at + part.start])
            if self._reference and self._nudge:
                logits = self._reference.trace(self._linears, self._nudge, *inputs)
            else:
                logits = self._runner.forward(*inputs)
            rows.append(logits.reshape(-1, logits.shape[-1]).float())
        return torch.cat(rows)


def _has_all_arithmetics(program: Program) -> bool:
    """Make all linears of `program` 8da4w, which can be computed in each arithmetic. False for a
    mixed one, which stays as it is, and where the 8da4w kernel cannot take one."""
    schemes = {one.scheme for one in find_linears(program.vulkan) if one.group_size is not None}
    if schemes == {Scheme.WEIGHT_ONLY}:
        try:
            retarget(program, Scheme.DYNAMIC_INT8)
        except InputError:
            return False
    return len(schemes) == 1
