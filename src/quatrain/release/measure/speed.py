"""How fast a program is on this machine, where something here runs it as a phone would: a GPU for
Vulkan, ExecuTorch's own runtime for XNNPACK. No phone's speed follows from it."""

import os
import platform
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quatrain.errors import InputError
from quatrain.program import open_program
from quatrain.runtime.automatic import first_choice
from quatrain.runtime.generation.generate import Generation, generate
from quatrain.runtime.load import is_vulkan, load_runner
from quatrain.tokenizer import Tokenizer, find_tokenizer

_PROMPT, _NEW = 128, 32  # tokens of the prompt and of the answer, at most
_RUNS = 3  # whose median is reported, after a warm-up


def measure_speed(
    program: Path, text: str, advance: Callable[[float], None] = lambda part: None
) -> dict[str, Any]:
    """Time `program` on the beginning of `text`, where a device for it is at hand.

    Gives plain data: the "machine" and "device" it ran on, "prompt_tokens" and "new_tokens", and
    tokens per second as "prompt" and "decode"; or "not_measured", why there is none of these.
    `advance` is called with the completed fraction.
    """
    opened = open_program(program)
    device = "executorch"
    if is_vulkan(opened):
        choice, reason = first_choice(opened.vulkan)
        if choice != "gpu" or reason:
            return {"not_measured": f"this machine has no usable GPU: {reason}"}
        device = "gpu"
    ids = Tokenizer.load(find_tokenizer(program)).encode(text)[: min(_PROMPT, opened.context // 2)]
    try:
        runner = load_runner(opened, device)
        runs = []
        for run in range(1 + _RUNS):
            runs.append(generate(runner, ids, context=opened.context, max_new_tokens=_NEW))
            advance((run + 1) / (1 + _RUNS))
        del runs[0]
    except InputError as error:  # an operator that the runtime here lacks
        return {"not_measured": str(error)}
    return {
        "not_measured": None,
        "machine": machine(),
        "device": runner.device,
        "prompt_tokens": len(ids),
        "new_tokens": len(runs[0].tokens),
        "prompt": _median(runs, "prefill_tokens_per_second"),
        "decode": _median(runs, "decode_tokens_per_second"),
    }


def here() -> str:
    """What decides on how fast a program is: this machine, and its first GPU."""
    from quatrain.runtime.wgpu.adapters import list_adapters

    return "; ".join([machine(), *(one.name for one in list_adapters()[:1])])


def machine() -> str:
    """The processor of this machine and its cores, in words."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def _median(runs: list[Generation], figure: str) -> float:
    """Three digits: more would be noise."""
    return float(f"{statistics.median(getattr(run, figure) for run in runs):.3g}")
