"""Our runtimes beside ExecuTorch's own: what its C++ Vulkan runtime computed for these programs.

`conformance/*.pte` are tiny random models, `*.npz` beside each what the runtime gave: `tokens`
int32 [1, 33]; `prefill_T` float32 [V], the last logits of one call of T tokens at position 0;
`steps` float32 [16, V], those of 16 calls of one token each. Larger programs lie outside the
repository, in ../shared/real-runtime, and are looked at where they are there.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.comparisons.rounding import rounding_explains
from tests.support.devices import RUNNERS
from tests.support.paths import CONFORMANCE, DOCS, REAL_RUNTIME

from quatrain.program import Tensor, open_program
from quatrain.runtime.reference import ReferenceRunner

PROGRAMS = {
    path.stem: path.with_suffix(".pte")
    for folder in (REAL_RUNTIME, CONFORMANCE)
    for path in sorted(folder.glob("*.npz"))
}
# Programs that meet a defect of the runtime that gave the numbers: that is what it computed.
DEFECTS = {"g256_d": "dq8ca-group-sums", "voc20k_w16": "embedding-height-packed"}
STEPS, PREFILL = 1e-5, 1e-4  # relative errors allowed in float32
_FLOORS = 2  # in float16: so many times what rounding alone does


def relative_error(found: torch.Tensor, expected: np.ndarray) -> float:
    """The largest difference over the largest magnitude, of what is finite in `expected`."""
    got, want = found.double().reshape(-1), torch.from_numpy(expected).double()
    finite = torch.isfinite(want)  # a pruned output gives -inf for what it left out
    assert torch.equal(finite, torch.isfinite(got))
    return float((got - want)[finite].abs().max() / want[finite].abs().max())


class Recorded:
    """What the real runtime gave for a program, call by call."""

    def __init__(self, program: Path) -> None:
        data = np.load(program.with_suffix(".npz"))
        self.tokens = torch.from_numpy(data["tokens"]).long()
        opened = open_program(program)
        # Of a pruned table only the tokens that it has: past its end a runtime reads anything.
        rows = _rows_of_table(opened.vulkan)
        inside = (self.tokens[0] < rows).int().cumprod(0).sum()
        lengths = sorted(int(name[8:]) for name in data if name.startswith("prefill_"))
        self.prefills = {n: data[f"prefill_{n}"] for n in lengths if n <= inside}
        self.steps = data["steps"][:inside]

    def calls(self):
        """(name, tokens int64 [1, T], position, whether a new text begins, expected [V])."""
        for length, expected in self.prefills.items():
            yield f"prefill of {length}", self.tokens[:, :length], 0, True, expected
        for at, expected in enumerate(self.steps):
            yield f"step {at}", self.tokens[:, at : at + 1], at, at == 0, expected


def _rows_of_table(graph) -> int:
    for operator in graph.operators:
        if operator.kind in ("aten.embedding", "et_vk.embedding_q4gsw"):
            return graph.tensor(operator.named_args["weights"]).shape[0]
    raise AssertionError("no embedding")


def logits(run, recorded: Recorded, reset) -> dict[str, torch.Tensor]:
    found = {}
    for name, tokens, position, begins, _ in recorded.calls():
        if begins:
            reset()
        found[name] = run(tokens, torch.tensor([position])).float().reshape(-1)
    return found


def rounding_floor(program: Path, recorded: Recorded) -> dict[str, float]:
    """How far float16's rounding alone moves each call's logits: the largest of some runs in
    which each value is moved by up to half a unit in its last place."""
    runner = ReferenceRunner(program, emulate=DEFECTS.get(program.stem))
    halves = {
        index
        for index, value in enumerate(runner.graph.values)
        if isinstance(value, Tensor) and value.dtype == "float16"
    }
    generator = torch.Generator().manual_seed(0)

    def shake(_value_id: int, value: torch.Tensor) -> torch.Tensor:
        noise = torch.rand(value.shape, generator=generator) * 2 - 1
        return (value.float() * (1 + noise * 2**-11)).to(value.dtype)

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        return runner.trace(halves, shake, *inputs)

    plain = logits(runner.forward, recorded, runner.reset)
    floor = dict.fromkeys(plain, 0.0)
    for _ in range(4):
        for name, found in logits(run, recorded, runner.reset).items():
            floor[name] = max(floor[name], relative_error(found, plain[name].numpy()))
    return floor


def test_the_page_counts_the_programs() -> None:
    graphs = [open_program(PROGRAMS[path.stem]).vulkan for path in CONFORMANCE.glob("*.npz")]
    half = [
        any(isinstance(value, Tensor) and value.dtype == "float16" for value in graph.values)
        for graph in graphs
    ]
    page = (DOCS / "gpu.md").read_text(encoding="utf-8")
    assert f" {half.count(False)} programs in fp32" in page
    assert f" {half.count(True)} programs in fp16" in page


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_as_the_real_runtime(name: str, runner) -> None:
    program = PROGRAMS[name]
    recorded = Recorded(program)
    assert len(recorded.prefills) >= 2 and len(recorded.steps) >= 3
    opened = runner(program, emulate=DEFECTS.get(name))
    found = logits(opened.forward, recorded, opened.reset)
    half = any(isinstance(v, Tensor) and v.dtype == "float16" for v in opened.graph.values)
    worst = max(rounding_floor(program, recorded).values()) if half else 0.0
    for call, tokens, position, _, expected in recorded.calls():
        error = relative_error(found[call], expected)
        if half:
            assert error < _FLOORS * worst, call
        elif call.startswith("step"):
            assert error < STEPS, call
        elif error >= PREFILL:
            reference = ReferenceRunner(program, emulate=DEFECTS.get(name))
            calls = [(position, position + tokens.shape[1])]
            assert rounding_explains(error, reference, tokens, calls), call
