"""`quatrain chat`: a conversation with a program, in the terminal or from a file."""

import io
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from quatrain.commands._before_torch import (
    check_program,
    check_tokenizer,
    leave_cores_to_executorch,
)
from quatrain.commands._turns import converse
from quatrain.commands.options.chat import ChatTemplate, System, TemplateVar, Tools, chat_options
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
from quatrain.commands.options.shared import AsOn, Debug, Device, Emulate, Model, TokenizerFile
from quatrain.commands.printing.progress import shown_stages
from quatrain.commands.printing.results import warn_of_an_idle_defect
from quatrain.errors import Interrupted
from quatrain.text_files import read_text

File = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A file with one turn per line, instead of the terminal."),
]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per turn, each on its own line.")
]


def chat(
    model: Model,
    file: File = None,
    tokenizer: TokenizerFile = None,
    system: System = None,
    tools: Tools = None,
    template_var: TemplateVar = None,
    chat_template: ChatTemplate = None,
    max_new_tokens: MaxNewTokens = 512,
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
    json: JsonLines = False,
    debug: Debug = False,
) -> None:
    """Chat with a program; earlier turns stay in the KV cache.

    Input comes from the terminal, from --file, or from standard input, one turn per line. /reset,
    /stats, /help and /exit are commands. Ctrl-C stops an answer, Ctrl-D ends the chat.

    Example: `quatrain chat smollm2.pte --system "You answer in one sentence."`
    """
    sampling = sampling_of(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    options = chat_options(True, system, tools, template_var, chat_template)
    # Not splitlines, for which characters within a turn end a line too.
    said = None if file is None else read_text(file).split("\n")
    check_program(model)
    check_tokenizer(tokenizer)
    leave_cores_to_executorch([model])
    with _no_files():
        with shown_stages()("load the program"):
            from quatrain.runtime.generation.conversation import Conversation
            from quatrain.targets.as_on import arithmetic_as_on

            conversation = Conversation(
                model, options=options, tokenizer=tokenizer, max_new_tokens=max_new_tokens,
                sampling=sampling, stop=stop or (), device=device, emulate=emulate,
                arithmetic=arithmetic_as_on(as_on),
            )  # fmt: skip
        print(f"[{conversation.device}, context {conversation.context} tokens]", file=sys.stderr)
        warn_of_an_idle_defect(model, emulate, as_on)
        if said is not None:
            converse(conversation, said, json, echo=not json)
        elif sys.stdin.isatty():
            converse(conversation, lines_of_terminal(), json, forgiving=True)
        else:
            converse(conversation, _lines_of_stdin(), json)


@contextmanager
def _no_files() -> Iterator[None]:
    """On an interrupt, print nothing more: messages about written files do not apply here."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("interrupted") from None


def _lines_of_stdin() -> Iterable[str]:
    """The lines of standard input, read as UTF-8 in every locale; the tokenizer refuses other
    bytes."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape")
    return sys.stdin


def lines_of_terminal() -> Iterator[str]:
    """The lines typed on the terminal, up to Ctrl-D; Ctrl-C clears the line."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.output import create_output

    # On the terminal also where the answers go to a file.
    session: PromptSession[str] = PromptSession(output=create_output(always_prefer_tty=True))
    print("[/help shows commands; Ctrl-D ends the chat]", file=sys.stderr)
    # A Ctrl-C too many, after an answer and before the prompt, is for neither.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        while True:
            try:
                line = session.prompt("> ")
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            yield line
    finally:
        signal.signal(signal.SIGINT, before)
