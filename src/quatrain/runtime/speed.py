"""Which of two runtimes on the same CPU decodes faster: measured once, and kept.

Without a real GPU a Vulkan program runs on a software one (llvmpipe) or on the reference. Which
is faster depends on the cores, the driver and the program.
"""

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path

import torch

from quatrain.atomic_files import cache_folder, whole_file
from quatrain.errors import InputError
from quatrain.program import Program, Tensor, VulkanGraph
from quatrain.program.linear_kernels import INT4_LINEARS
from quatrain.runtime.generate import Runner
from quatrain.stages import installed_memory_bytes

_STEPS = 5
_SECONDS = 0.2  # after which no further step is timed
_CLEARLY = 1.25  # how much faster the software GPU must be: near a tie, chance decides nothing


@torch.inference_mode()
def decode_seconds(runner: Runner, one: torch.Tensor) -> float:
    """The shortest time of a decode step of `one` token (or its embedding [1, 1, dim]), after a
    step that warms `runner` up; it is reset after."""
    runner.forward(one, torch.tensor([0]))
    times: list[float] = []
    while len(times) < _STEPS and sum(times) < _SECONDS:
        begun = time.perf_counter()
        runner.forward(one, torch.tensor([0]))
        times.append(time.perf_counter() - begun)
    runner.reset()
    return min(times)


def prefers_reference(seconds: dict[str, float]) -> bool:
    """Whether the reference is to run what takes so long a step on "gpu" and on "reference"."""
    return seconds["reference"] < seconds["gpu"] * _CLEARLY


def tokens_per_second(seconds: dict[str, float]) -> dict[str, str]:
    """The rates, for people."""
    return {name: f"{1 / each:.1f}" for name, each in seconds.items()}


def one_token(program: Program) -> torch.Tensor:
    """What a decode step of `program` takes: a token int64 [1, 1], or embeddings [1, 1, dim]."""
    sizes = program.methods["forward"].inputs[0].sizes
    return torch.zeros(1, 1, sizes[2]) if len(sizes) == 3 else torch.tensor([[0]])


class KeptSpeeds:
    """Seconds per decode step by runtime, in a file of `cache_folder()`.

    The file's name stands for what they depend on: the constants' shapes, the adapter, the threads.
    """

    def __init__(self, graph: VulkanGraph, adapter: str, driver: str = ""):
        self.adapter = adapter
        # Not the operators: `logits` and `evaluate` change some, and are to choose as `run` does.
        constants = [
            (value.dtype, value.shape)
            for value in graph.values
            if isinstance(value, Tensor) and value.constant is not None
        ]
        text = repr((constants, f"{adapter} {driver}", torch.get_num_threads()))
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.path: Path = cache_folder() / "speeds" / f"{name}.json"

    def read(self) -> dict[str, float] | None:
        """What `write` kept, None where nothing was or it is damaged."""
        try:
            kept = json.loads(self.path.read_text())
            return {name: float(kept[name]) for name in ("gpu", "reference")}
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, seconds: dict[str, float]) -> None:
        """Keep `seconds`; where the cache cannot be written they are measured again."""
        with suppress(OSError, InputError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(self.path) as temporary:
                temporary.write_text(json.dumps(seconds))


def reference_fits(graph: VulkanGraph) -> bool:
    """Whether the reference's dense weights, 4 bytes each, take less than half of the memory."""
    packed = {
        operator.named_args["weights"]
        for operator in graph.operators
        if operator.kind in INT4_LINEARS
    }
    dense = sum(8 * graph.tensor(value_id).nbytes for value_id in packed)
    return dense < installed_memory_bytes() / 2
