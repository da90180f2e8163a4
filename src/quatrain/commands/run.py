"""`quatrain run`: generate text with a program, on this machine."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from quatrain.commands._common import (
    Debug,
    Device,
    Emulate,
    Json,
    Model,
    check_output,
    print_json,
    shown_stages,
)
from quatrain.errors import InputError

if TYPE_CHECKING:
    from quatrain.runtime.generate import Generation
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
    from quatrain.program import open_program
    from quatrain.runtime.generate import check_prompt, check_sampling, generate
    from quatrain.runtime.health import WatchedRunner, judge
    from quatrain.runtime.load import load_runner, require_tokens_to_logits
    from quatrain.tokenizer import end_ids

    check_sampling(temperature, seed)
    program = open_program(model)
    require_tokens_to_logits(model, program.metadata, "run")
    if profile:
        device = _device_to_profile(device)
        check_output(profile, "--profile")
    words = _tokenizer(model, tokenizer)
    tokens = _encode(words, prompt, chat)
    context = int(program.metadata.get("get_max_context_len", 1 << 30))
    check_prompt(tokens, context)
    runner = load_runner(program, device, emulate, shown_stages())
    if profile:
        _check_timestamps(cast("WgpuRunner", runner))
    stream = words.stream()

    def show(token: int) -> None:
        if not json:
            print(stream.push(token), end="", flush=True)

    watched = WatchedRunner(runner)
    generation = generate(
        watched,
        tokens,
        context=context,
        max_new_tokens=max_new_tokens,
        eos_ids=end_ids(words.eos_ids, runner.metadata),
        temperature=temperature,
        seed=seed,
        on_token=show,
    )
    health = judge(generation.tokens, watched.entropies, generation.stopped)
    times = _profile(cast("WgpuRunner", runner), len(tokens), profile) if profile else []
    if json:
        operators = {"operators": [asdict(time) for time in times]} if profile else {}
        summary = _summary(generation, words, runner.device)
        print_json(summary | {"health": asdict(health)} | operators)
        return
    print(stream.finish())
    _print_speed(generation, runner.device)
    for problem in health.problems:
        print(f"warning: {problem}", file=sys.stderr)
    for time in times:
        print(f"  {time.operator:<40}{time.dispatches:>5}{time.milliseconds:>9.2f} ms")


def _device_to_profile(device: str) -> str:
    """The GPU, where alone kernels can be timed; `InputError` where another device is asked for."""
    if device.partition(":")[0] not in ("auto", "gpu"):
        raise InputError(f"--profile times GPU kernels; --device is {device}, expected gpu")
    return "gpu" if device == "auto" else device


def _check_timestamps(runner: "WgpuRunner") -> None:
    if not runner.gpu.info.timestamps:
        raise InputError(f"{runner.gpu.info.name} has no timestamp queries to --profile with")


def _tokenizer(model: Path, given: Path | None) -> "Tokenizer":
    from quatrain.tokenizer import Tokenizer, find_tokenizer

    try:
        file = given or find_tokenizer(model)
    except InputError as error:
        raise InputError(f"{error}, or give one as --tokenizer") from error
    return Tokenizer.load(file)


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
