"""`quatrain run`: generate text with a program, on this machine."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quatrain.commands._before_torch import (
    check_output,
    check_program,
    check_tokenizer,
    leave_cores_to_executorch,
)
from quatrain.commands.options.chat import (
    Chat,
    ChatTemplate,
    System,
    TemplateVar,
    Tools,
    chat_options,
)
from quatrain.commands.options.sampling import (
    MaxNewTokens,
    MinP,
    RepetitionPenalty,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopP,
    sampling_of,
)
from quatrain.commands.options.shared import (
    AsOn,
    Debug,
    Device,
    Emulate,
    Json,
    Model,
    TokenizerFile,
)
from quatrain.commands.printing.progress import shown_stages
from quatrain.commands.printing.results import print_json, warn_of_an_idle_defect

if TYPE_CHECKING:
    from quatrain.runtime.generation.text_generation import TextGeneration


Prompt = Annotated[str, typer.Option(metavar="TEXT", help="The prompt.")]
Profile = Annotated[
    Path | None,
    typer.Option(
        metavar="TRACE.JSON",
        help="Profile one decode step on the GPU by operator, and write a Chrome trace.",
    ),
]


def run(
    model: Model,
    prompt: Prompt,
    tokenizer: TokenizerFile = None,
    chat: Chat = False,
    system: System = None,
    tools: Tools = None,
    template_var: TemplateVar = None,
    chat_template: ChatTemplate = None,
    max_new_tokens: MaxNewTokens = 256,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Seed = None,
    stop: Stop = None,
    device: Device = "auto",
    emulate: Emulate = None,
    as_on: AsOn = None,
    profile: Profile = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Generate text with a program, then print its speed, and a warning if the text looks garbled.

    Example: `quatrain run smollm2.pte --chat --prompt "Why is the sky blue?"`
    """
    sampling = sampling_of(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    said = chat_options(chat, system, tools, template_var, chat_template)
    if profile:
        check_output(profile, "--profile", model, tokenizer, tools)
    check_program(model)
    check_tokenizer(tokenizer)
    leave_cores_to_executorch([model])
    with ExitStack() as waiting:
        waiting.enter_context(shown_stages()("load and prefill"))
        from quatrain.runtime.generation.text_generation import generate_text
        from quatrain.targets.as_on import arithmetic_as_on

        def show(text: str) -> None:
            waiting.close()
            if not json:
                print(text, end="", flush=True)

        found = generate_text(
            model, prompt, chat=chat, chat_options=said, tokenizer=tokenizer,
            max_new_tokens=max_new_tokens, sampling=sampling, stop=stop or (), device=device,
            emulate=emulate, profile=profile, on_text=show, arithmetic=arithmetic_as_on(as_on),
        )  # fmt: skip
    if json:
        print_json(found.as_dict())
    else:
        print()
        _print_figures(found)
    warn_of_an_idle_defect(model, emulate, as_on, len(found.generation.prompt))


def _print_figures(found: "TextGeneration") -> None:
    generation = found.generation
    prompt = len(generation.prompt)
    print(
        f"[{found.device}: prefill {prompt} {'token' if prompt == 1 else 'tokens'} at "
        f"{generation.prefill_tokens_per_second:.1f}/s, decode {len(generation.tokens)} at "
        f"{generation.decode_tokens_per_second:.1f}/s, stopped by {generation.stopped}]",
        file=sys.stderr,
    )
    for problem in found.health.problems:
        print(f"warning: {problem}", file=sys.stderr)
    for time in found.operators or ():
        print(f"  {time.operator:<40}{time.dispatches:>5}{time.milliseconds:>9.2f} ms")
