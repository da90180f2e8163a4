"""Decode and prefill speed of Vulkan programs on this machine's GPU, against the CPU reference.

    python benchmarks/runtime.py model-8da4w.pte model-weight-only.pte --json runtime.json
    python benchmarks/runtime.py ... --peer     llama.cpp beside them

The peer runs the GGUF file that SmolLM2 comes in (Q4_1) through llama-cpp-python: on its first
Vulkan device, llvmpipe included, where it was built with Vulkan, and on the CPU.

Every figure is a median. CPU time per token tells more than wall time where other programs run
on the same cores and the adapter computes on them (llvmpipe). The linears' share is that of a
step's time on the GPU which is gone when they are left out of it. Per-operator times come from
timestamp queries, one compute pass per dispatch, which adds to each: their sum is more than a step
takes. Bytes per second count the packed weights and scales
that one decoded token reads.
"""

import argparse
import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from measure import machine
from quatrain.program import VulkanGraph
from quatrain.runtime.reference import ReferenceRunner
from quatrain.runtime.runner import forward_in_parts
from quatrain.runtime.wgpu.device import Gpu
from quatrain.runtime.wgpu.profile import by_operator
from quatrain.runtime.wgpu.runner import WgpuRunner
from quatrain.runtime.wgpu.sequence import Sequence
from quatrain.smollm2 import fetch_smollm2

COPIED = 64 << 20  # bytes of the device copy that weights are compared with


def main() -> None:
    """Measure each program given, print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("programs", nargs="+", type=Path)
    parser.add_argument("--adapter", help="name or number from `quatrain devices`")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=32, help="decoded tokens")
    parser.add_argument("--peer", action="store_true", help="measure llama.cpp as well")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.peer and not importlib.util.find_spec("llama_cpp"):
        parser.error("--peer needs llama-cpp-python: pip install llama-cpp-python")

    rows, operators, where = [], {}, machine()
    for path in options.programs:
        runner = WgpuRunner(path, options.adapter)
        gpu = measure(runner, options.prompt, options.tokens)
        gpu |= {"program": path.name, "runtime": f"wgpu, {runner.gpu.info.name}"}
        gpu["weight_gb_per_s"] = weight_bytes(runner.graph) * gpu["decode_tokens_per_s"] / 1e9
        gpu["copy_gb_per_s"] = copy_speed(runner.gpu)
        operators[path.name] = profile(runner, options.prompt)
        gpu["linear_share"] = linear_share(runner, options.prompt)
        reference = measure(ReferenceRunner(path), options.prompt, max(4, options.tokens // 4))
        rows += [gpu, reference | {"program": path.name, "runtime": "reference, CPU"}]
    if options.peer:
        rows += llama_cpp_rows(options.prompt, options.tokens)

    print(f"{where['cpu']}, {torch.get_num_threads()} threads")
    heads = f"{'decode tok/s':>13}{'CPU ms/tok':>12}{'prefill tok/s':>14}{'linears':>9}"
    print(f"{'program':<34}{'runtime':<42}{heads}")
    for row in rows:
        share = f"{row['linear_share']:.0%}" if "linear_share" in row else ""
        speeds = (
            f"{row['decode_tokens_per_s']:>13.2f}{row['decode_cpu_ms_per_token']:>12.0f}"
            f"{row['prefill_tokens_per_s']:>14.1f}"
        )
        print(f"{row['program']:<34}{row['runtime']:<42}{speeds}{share:>9}")
        if "weight_gb_per_s" in row:
            speeds = (row["weight_gb_per_s"], row["copy_gb_per_s"])
            print("    weights {:.2f} GB/s, device copy {:.1f} GB/s".format(*speeds))
    for name, times in operators.items():
        print(f"\n{name}: one decoded token, by operator")
        for operator, (count, milliseconds) in times.items():
            print(f"    {operator:<40}{count:>5} {milliseconds:>9.2f} ms")
    if options.json:
        report = {
            "machine": where,
            "options": vars(options),
            "rows": rows,
            "operators": operators,
        }
        options.json.write_text(json.dumps(report, indent=2, default=str) + "\n")


def measure(runner: Any, prompt: int, tokens: int) -> dict[str, float]:
    """Tokens per second of `runner`: a prompt of `prompt` tokens, then one token at a time."""
    text = torch.arange(prompt)[None] % 50
    prefill = [timed(lambda: forward_in_parts(runner, text, 0)) for _ in range(3)]
    busy = time.process_time()
    decode = [
        timed(lambda at=at: runner.forward(torch.tensor([[7]]), torch.tensor([at])))
        for at in range(prompt, prompt + tokens)
    ]
    return {
        "prefill_tokens_per_s": prompt / statistics.median(prefill[1:]),
        "decode_tokens_per_s": 1 / statistics.median(decode),
        "decode_cpu_ms_per_token": (time.process_time() - busy) / tokens * 1e3,
        "first_prefill_s": prefill[0],
    }


def llama_cpp_rows(prompt: int, tokens: int) -> list[dict[str, Any]]:
    """llama.cpp on the GPU, where it was built with Vulkan, and on the CPU."""
    # Without this, it passes over devices that compute on the CPU, such as llvmpipe.
    os.environ.setdefault("GGML_VK_VISIBLE_DEVICES", "0")
    import llama_cpp

    places = [True, False] if llama_cpp.llama_supports_gpu_offload() else [False]
    name = f"llama.cpp {llama_cpp.__version__}"
    return [
        measure(LlamaCpp(prompt + tokens, gpu), prompt, tokens)
        | {"program": "SmolLM2-135M, Q4_1", "runtime": f"{name}, {'GPU' if gpu else 'CPU'}"}
        for gpu in places
    ]


class LlamaCpp:
    """llama.cpp on SmolLM2's GGUF file, behind the `forward` that `measure` calls."""

    def __init__(self, context: int, gpu: bool):
        import llama_cpp

        self.model = llama_cpp.Llama(
            str(fetch_smollm2()),
            n_ctx=context,
            n_gpu_layers=-1 if gpu else 0,
            offload_kqv=gpu,
            op_offload=gpu,
            n_threads=torch.get_num_threads(),
            n_threads_batch=torch.get_num_threads(),
            verbose=False,
        )

    def forward(self, tokens: torch.Tensor, position: torch.Tensor) -> None:
        """Evaluate tokens [1, T] from position[0] on."""
        if int(position[0]) == 0:
            self.model.reset()
        self.model.eval(tokens[0].tolist())


def timed(call: Callable[[], Any]) -> float:
    """Seconds that `call` took."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def profile(runner: WgpuRunner, position: int) -> dict[str, tuple[int, float]]:
    """Operator -> (dispatches, milliseconds) of one decoded token; the median of three runs."""
    inputs = torch.tensor([[7]]), torch.tensor([position])
    runs = [{t.operator: t for t in by_operator(runner.profile(*inputs))} for _ in range(3)]
    merged = {
        name: (time.dispatches, statistics.median(run[name].milliseconds for run in runs))
        for name, time in runs[0].items()
    }
    return dict(sorted(merged.items(), key=lambda item: -item[1][1]))


def linear_share(runner: WgpuRunner, position: int) -> float:
    """The part of a decode step's time on the GPU that goes when the linears are left out."""
    plan, given = runner.plan((torch.tensor([[7]]), torch.tensor([position])))
    symbols, gpu = runner.symbols(plan.lowered, given), runner.gpu

    def step(sequence: Sequence) -> float:
        encoder = gpu.device.create_command_encoder()
        sequence.encode(encoder, symbols)
        encoder.copy_buffer_to_buffer(plan.memory[plan.output.key], 0, plan.staging, 0, 16)
        commands = encoder.finish()

        def run() -> None:
            gpu.device.queue.submit([commands])
            gpu.read(plan.staging, "uint8")

        return timed(run)

    rest = [d for d in plan.lowered.dispatches if not d.kernel.startswith("linear")]
    without = Sequence(gpu, rest, plan.memory)
    pairs = [(step(plan.sequence), step(without)) for _ in range(20)]
    whole, left = (statistics.median(times) for times in zip(*pairs, strict=True))
    return 1 - left / whole


def weight_bytes(graph: VulkanGraph) -> int:
    """Bytes of packed weights and scales that one decoded token reads."""
    total = 0
    for operator in graph.operators:
        if "linear" in operator.kind:
            args = operator.named_args
            total += sum(graph.tensor(args[name]).nbytes for name in ("weights", "weight_scales"))
    return total


def copy_speed(gpu: Gpu) -> float:
    """GB per second of a copy from buffer to buffer, as read plus written bytes."""
    source, target = gpu.buffer(COPIED, "a copy"), gpu.buffer(COPIED, "a copy")
    staging = gpu.staging(16)

    def copy() -> None:
        encoder = gpu.device.create_command_encoder()
        encoder.copy_buffer_to_buffer(source, 0, target, 0, COPIED)
        encoder.copy_buffer_to_buffer(target, 0, staging, 0, 16)
        gpu.device.queue.submit([encoder.finish()])
        gpu.read(staging, "uint8")

    copy()
    return 2 * COPIED / statistics.median(timed(copy) for _ in range(5)) / 1e9


if __name__ == "__main__":
    main()
