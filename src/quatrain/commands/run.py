"""`quatrain run`: generate text with a program, on this machine."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from quatrain.commands._common import Debug, Device, Emulate, Json, Model, print_json
from quatrain.errors import InputError

if TYPE_CHECKING:
    from quatrain.runtime.generate import Generation
    from quatrain.runtime.load import ProgramRunner
    from quatrain.runtime.wgpu import WgpuRunner
    from quatrain.runtime.wgpu.profile import OperatorTime
    from quatrain.tokenizer import Tokenizer


def run(
    model: Model,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="What to continue.")],
    tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="tokenizer.json; default: the one beside the program."),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Put the prompt into the model's chat template.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(metavar="N", min=1)] = 256,
    temperature: Annotated[
        float, typer.Option(metavar="T", help="0: always the most likely token.")
    ] = 0.0,
    seed: Annotated[
        int, typer.Option(metavar="S", help="For a temperature above 0: from 0 to 2^64 - 1.")
    ] = 0,
    device: Device = "auto",
    emulate: Emulate = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            metavar="TRACE.JSON",
            help="Time one decode step on the GPU by operator; write a Chrome trace.",
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Stream the text a program generates, then how fast it was, and whether it looks garbled.

    Example: `quatrain run smollm2.pte --chat --prompt "Why is the sky blue?"`
    """
    from quatrain.runtime.generate import check_sampling, generate
    from quatrain.runtime.load import (
        eos_ids,
        find_tokenizer,
        load_runner,
        require_tokens_to_logits,
    )
    from quatrain.tokenizer import Tokenizer
    from quatrain.verify.health import WatchedRunner, judge

    check_sampling(temperature, seed)
    if profile and device == "auto":
        device = "gpu"  # where alone kernels can be timed
    runner, runtime = load_runner(model, device, emulate)
    if profile:
        _check_profile(runner, profile)
    require_tokens_to_logits(model, runner.metadata, "run")
    words = Tokenizer.load(tokenizer or find_tokenizer(model))
    tokens = _encode(words, prompt, chat)
    stream = words.stream()

    def show(token: int) -> None:
        if not json:
            print(stream.push(token), end="", flush=True)

    watched = WatchedRunner(runner)
    generation = generate(
        watched,
        tokens,
        context=int(runner.metadata.get("get_max_context_len", 1 << 30)),
        max_new_tokens=max_new_tokens,
        eos_ids=words.eos_ids or eos_ids(runner.metadata),
        temperature=temperature,
        seed=seed,
        on_token=show,
    )
    health = judge(generation.tokens, watched.entropies, generation.stopped)
    times = _profile(cast("WgpuRunner", runner), len(tokens), profile) if profile else []
    if json:
        operators = {"operators": [asdict(time) for time in times]} if profile else {}
        summary = _summary(generation, words, runtime)
        print_json(summary | {"health": asdict(health)} | operators)
        return
    print(stream.finish())
    _print_speed(generation, runtime)
    for problem in health.problems:
        print(f"warning: {problem}", file=sys.stderr)
    for time in times:
        print(f"  {time.operator:<40}{time.dispatches:>5}{time.milliseconds:>9.2f} ms")


def _check_profile(runner: "ProgramRunner", trace: Path) -> None:
    """Refuse, before anything is generated, what could not be timed or written after it."""
    from quatrain.runtime.wgpu import WgpuRunner

    if not isinstance(runner, WgpuRunner):
        raise InputError("--profile times GPU kernels; use it with --device gpu")
    if not runner.gpu.info.timestamps:
        raise InputError(f"{runner.gpu.info.name} has no timestamp queries to profile with")
    if not trace.parent.is_dir():
        raise InputError(f"--profile {trace}: there is no folder {trace.parent}")


def _profile(runner: "WgpuRunner", position: int, trace: Path) -> "list[OperatorTime]":
    """The time of each operator in one decode step, which is also written as a Chrome trace."""
    import torch

    from quatrain.runtime.wgpu.profile import by_operator, write_chrome_trace

    timings = runner.profile(torch.tensor([[1]]), torch.tensor([position]))
    write_chrome_trace(timings, trace)
    return by_operator(timings)


def _encode(words: "Tokenizer", prompt: str, chat: bool) -> list[int]:
    if not chat:
        return words.encode(prompt)
    text = words.apply_chat([{"role": "user", "content": prompt}])
    return words.encode(text, add_special_tokens=False)


def _summary(generation: "Generation", words: "Tokenizer", runtime: str) -> dict:
    return {
        "text": words.decode(generation.tokens),
        "tokens": generation.tokens,
        "prompt_tokens": generation.prompt,
        "stopped": generation.stopped,
        "runtime": runtime,
        "prefill_tokens_per_second": generation.prefill_tokens_per_second,
        "decode_tokens_per_second": generation.decode_tokens_per_second,
    }


def _print_speed(generation: "Generation", runtime: str) -> None:
    print(
        f"[{runtime}: prefill {len(generation.prompt)} tokens at "
        f"{generation.prefill_tokens_per_second:.1f}/s, decode {len(generation.tokens)} at "
        f"{generation.decode_tokens_per_second:.1f}/s, stopped by {generation.stopped}]",
        file=sys.stderr,
    )
