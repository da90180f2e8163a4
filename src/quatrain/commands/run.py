"""`quatrain run`: generate text with a program, on this machine."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quatrain.commands._common import Debug, Json, Model, print_json
from quatrain.errors import InputError

if TYPE_CHECKING:
    from quatrain.runtime.generate import Generation
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
        float, typer.Option(metavar="T", min=0.0, help="0: always the most likely token.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(metavar="S", help="For a temperature above 0.")] = 0,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="auto, gpu, reference or executorch.")
    ] = "auto",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Stream the text a program generates, then how fast it was.

    Example: `quatrain run smollm2.pte --chat --prompt "Why is the sky blue?"`
    """
    from quatrain.runtime.generate import generate
    from quatrain.runtime.load import find_tokenizer, load_runner
    from quatrain.tokenizer import Tokenizer

    runner, runtime = load_runner(model, device)
    for option in ("embedding_input", "hidden_output"):
        if runner.metadata.get(f"quatrain_{option}"):
            raise InputError(
                f"{model}: was exported with --{option.replace('_', '-')}, so it does not go from "
                "tokens to tokens; call it from Python (quatrain.runtime)"
            )
    words = Tokenizer.load(tokenizer or find_tokenizer(model))
    tokens = _encode(words, prompt, chat)
    stream = words.stream()

    def show(token: int) -> None:
        if not json:
            print(stream.push(token), end="", flush=True)

    generation = generate(
        runner,
        tokens,
        context=int(runner.metadata.get("get_max_context_len", 1 << 30)),
        max_new_tokens=max_new_tokens,
        eos_ids=words.eos_ids or list(runner.metadata.get("get_eos_ids", [])),
        temperature=temperature,
        seed=seed,
        on_token=show,
    )
    if json:
        print_json(_summary(generation, words, runtime))
    else:
        print(stream.finish())
        _print_speed(generation, runtime)


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
