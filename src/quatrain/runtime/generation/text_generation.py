"""Generates text with a program, and checks whether the text looks garbled."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from quatrain.arithmetic import VULKAN_ARITHMETIC, Arithmetic
from quatrain.errors import InputError, require_at_least
from quatrain.program import Program, open_program
from quatrain.runtime.calls.token_ids import check_token_ids
from quatrain.runtime.generation.generate import Generation, check_prompt, generate
from quatrain.runtime.generation.health import Health, WatchedRunner, judge
from quatrain.runtime.generation.sampling import GREEDY, Sampling
from quatrain.runtime.generation.stop_strings import TextUntil, check_stops
from quatrain.runtime.load import is_vulkan, load_runner, require_tokens_to_logits
from quatrain.runtime.runner import Runner
from quatrain.tokenizer import Tokenizer, chosen_tokenizer, end_ids
from quatrain.tokenizer.chat_prompt import ChatOptions, chat_prompt

if TYPE_CHECKING:  # a program on another runtime needs no wgpu
    from quatrain.runtime.wgpu.profile import OperatorTime
    from quatrain.runtime.wgpu.runner import WgpuRunner


@dataclass(frozen=True)
class TextGeneration:
    """The result of `generate_text`.

    Attributes:
        text: The generated text.
        generation: Its tokens, and their speed.
        device: What the program ran on, as text for people.
        health: Measures of whether the text is garbled.
        operators: The time of each operator in a decode step, if it was requested.
        stop_string: The stop string before which the text ends, if there is one.
    """

    text: str
    generation: Generation
    device: str
    health: Health
    operators: "list[OperatorTime] | None" = None
    stop_string: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The generation as plain data, ready for JSON."""
        generation = self.generation
        fields = {
            "text": self.text,
            "tokens": generation.tokens,
            "logits": generation.logits,
            "logprobs": generation.logprobs,
            "prompt_tokens": generation.prompt,
            "stopped": generation.stopped,
            "stop_string": self.stop_string,
            "device": self.device,
            "prefill_tokens_per_second": generation.prefill_tokens_per_second,
            "decode_tokens_per_second": generation.decode_tokens_per_second,
            "health": asdict(self.health),
        }
        if self.operators is None:
            return fields
        return fields | {"operators": [asdict(time) for time in self.operators]}


def generate_text(
    program: Program | Path | str,
    prompt: str,
    *,
    chat: bool = False,
    chat_options: ChatOptions | None = None,
    tokenizer: Path | str | None = None,
    max_new_tokens: int = 256,
    sampling: Sampling = GREEDY,
    stop: Sequence[str] = (),
    device: str = "auto",
    emulate: str | None = None,
    profile: Path | str | None = None,
    on_text: Callable[[str], None] | None = None,
    arithmetic: Arithmetic = VULKAN_ARITHMETIC,
) -> TextGeneration:
    """Continue `prompt` with a program that maps tokens to logits.

    Args:
        program: An opened program, or the path of a .pte file.
        prompt: The text to continue.
        chat: Put the prompt into the model's chat template.
        chat_options: Other input of that template.
        tokenizer: A tokenizer.json; None means the one beside the program.
        max_new_tokens: As in `generate`.
        sampling: As in `generate`.
        stop: Stop strings; the text ends before the first one that is generated.
        device: As in `load_runner`.
        emulate: As in `load_runner`.
        profile: Where to write a Chrome trace of one decode step on the GPU.
        on_text: Called with each part of the text as it is generated.
        arithmetic: As in `load_runner`.

    Raises:
        InputError: An argument is wrong (checked before the program is loaded), or as for
            `load_runner`.
    """
    check_stops(stop)
    require_at_least(1, "max_new_tokens", max_new_tokens)
    if profile:
        device = _device_to_profile(device)
    program = program if isinstance(program, Program) else open_program(program)
    if profile and not is_vulkan(program):
        raise InputError(
            f"--profile times GPU kernels, and {program.path} is a program for the CPU; leave it "
            "out"
        )
    require_tokens_to_logits(program.path, program.metadata, "run")
    loaded = Tokenizer.load(chosen_tokenizer(tokenizer, program.path))
    tokens = _encode(loaded, prompt, chat, chat_options)
    check_prompt(tokens, program.context)
    if "get_vocab_size" in program.metadata:
        check_token_ids(tokens, program.metadata["get_vocab_size"], loaded.model.id_to_token)
    runner = load_runner(program, device, emulate, arithmetic)
    if profile:
        _check_timestamps(cast("WgpuRunner", runner))
    written = write_text(
        runner, loaded, tokens, context=program.context, max_new_tokens=max_new_tokens,
        eos_ids=end_ids(loaded.eos_ids, runner.metadata), sampling=sampling, stop=stop,
        on_text=on_text,
    )  # fmt: skip
    times = _profile(cast("WgpuRunner", runner), len(tokens), Path(profile)) if profile else None
    return TextGeneration(
        written.text, written.generation, runner.device, written.health, times, written.stop_string
    )


@dataclass(frozen=True)
class WrittenText:
    """A text, the tokens it is of, whether it looks like a model's, and the stop string that ended
    it, if one did."""

    text: str
    generation: Generation
    health: Health
    stop_string: str | None


def write_text(
    runner: Runner,
    tokenizer: Tokenizer,
    tokens: Sequence[int],
    *,
    context: int,
    max_new_tokens: int,
    eos_ids: Sequence[int],
    sampling: Sampling,
    stop: Sequence[str],
    on_text: Callable[[str], bool | None] | None,
) -> WrittenText:
    """Continue `tokens`, in text: `generate`, up to a stop string. The text also ends if `on_text`,
    which is called with each part, returns True."""
    until, stream, watched = TextUntil(stop), tokenizer.stream(), WatchedRunner(runner)
    text = ""

    def show(part: str) -> bool:
        nonlocal text
        text += part
        return bool(on_text and on_text(part))

    generation = generate(
        watched, tokens, context=context, max_new_tokens=max_new_tokens, eos_ids=eos_ids,
        sampling=sampling,
        on_token=lambda token: show(until.push(stream.push(token))) or until.found is not None,
    )  # fmt: skip
    if until.found is not None:
        generation = replace(generation, stopped="stop string")
    else:
        show(until.push(stream.finish()) + until.finish())
    health = judge(generation.tokens, watched.entropies, generation.stopped)
    return WrittenText(text, generation, health, until.found)


def _device_to_profile(device: str) -> str:
    """The GPU, since kernels can be timed only there; raises `InputError` if another device is
    asked for."""
    if device.partition(":")[0] not in ("auto", "gpu"):
        raise InputError(f"--profile times GPU kernels; --device is {device}, expected gpu")
    return "gpu" if device == "auto" else device


def _check_timestamps(runner: "WgpuRunner") -> None:
    if not runner.gpu.info.timestamps:
        raise InputError(f"{runner.gpu.info.name} has no timestamp queries to --profile with")


def _encode(
    tokenizer: Tokenizer, prompt: str, chat: bool, chat_options: ChatOptions | None
) -> list[int]:
    if not chat:
        return tokenizer.encode(prompt)
    text = chat_prompt(tokenizer, prompt, chat_options or ChatOptions())
    return tokenizer.encode(text, add_special_tokens=False)


def _profile(runner: "WgpuRunner", position: int, trace: Path) -> "list[OperatorTime]":
    """The time of each operator in one decode step, which is also written as a Chrome trace."""
    from quatrain.runtime.wgpu.profile import by_operator, write_chrome_trace

    timings = runner.profile(torch.tensor([[1]]), torch.tensor([position]))
    write_chrome_trace(timings, trace)
    return by_operator(timings)
