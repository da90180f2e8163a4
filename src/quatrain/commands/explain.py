"""`quatrain explain`: the cause of a phone's output."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quatrain.commands._before_torch import check_program, check_tokenizer, import_torch
from quatrain.commands.options.chat import (
    Chat,
    ChatTemplate,
    System,
    TemplateVar,
    Tools,
    chat_options,
)
from quatrain.commands.options.shared import (
    Debug,
    Json,
    Runtime,
    TokenizerFile,
    known_targets,
    require_target,
)
from quatrain.commands.printing.progress import shown_stages
from quatrain.commands.printing.results import print_json
from quatrain.text_files import read_text

if TYPE_CHECKING:
    from quatrain.verify.explain.explanation import Explanation

Written = Annotated[
    Path,
    typer.Argument(
        metavar="PHONE.TXT",
        help="The phone's output: text, token ids (a JSON list, or integers separated by "
        'spaces), or a JSON object with "text" and "tokens".',
    ),
]
Program = Annotated[Path, typer.Option(metavar="MODEL.PTE", help="The program on the phone.")]
Prompt = Annotated[str | None, typer.Option(metavar="TEXT", help="The prompt that the phone got.")]
Phone = Annotated[
    str | None,
    typer.Option(
        metavar="ID",
        help="The phone or its GPU, such as pixel-8 or mali-g715. Default: any.",
        autocompletion=known_targets,
        callback=require_target,
    ),
]
Expected = Annotated[
    Path | None,
    typer.Option(
        metavar="EXPECTED.JSON",
        help="The expected.json of `quatrain release`, which has the prompts; --prompt chooses "
        "one of several.",
    ),
]


def explain(
    written: Written,
    program: Program,
    prompt: Prompt = None,
    chat: Chat = False,
    system: System = None,
    tools: Tools = None,
    template_var: TemplateVar = None,
    chat_template: ChatTemplate = None,
    phone: Phone = None,
    runtime: Runtime = None,
    expected: Expected = None,
    tokenizer: TokenizerFile = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Find the cause of a phone's output (correct, a defect, or a mistake), and the fix.

    Computes the correct answer, each other arithmetic, each known defect that can be emulated, and
    common mistakes with templates and tokenizers, and ranks them by the likelihood of the text.

    Example: `quatrain explain phone.txt --program model.pte --chat --prompt "Why is the sky blue?"`
    """
    said = chat_options(chat, system, tools, template_var, chat_template)
    from quatrain.verify.explain.phone_output import read_phone_output

    output = read_phone_output(written)
    check_program(program)
    if expected:
        read_text(expected)
    check_tokenizer(tokenizer)
    import_torch()
    from quatrain.verify.explain.explain import explain_output

    found = explain_output(
        output, program, prompt, chat=chat, chat_options=said, phone=phone,
        runtime=runtime, expected=expected, tokenizer=tokenizer, stages=shown_stages(),
    )  # fmt: skip
    if json:
        print_json(found.as_dict())
    else:
        _print(found)


def _print(found: "Explanation") -> None:
    print(found.statement)
    for line in found.evidence:
        print(f"  {line}")
    if found.remedy:
        print(f"fix: {found.remedy}")
    for note in found.notes:
        print(f"note: {note}")
    print(f"{'computed':<32}{'log likelihood':>15}{'likeliest tokens':>18}{'temperature':>13}")
    for one in found.candidates[:5]:
        agreeing = f"{one.agreeing} of {one.tokens}"
        heat = "greedy" if one.temperature is None else f"{one.temperature:g}"
        print(f"{one.id:<32}{one.log_likelihood:>15.1f}{agreeing:>18}{heat:>13}")
