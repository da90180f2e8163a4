"""`quatrain verify`: checks that a program computes what its checkpoint defines."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quatrain.checkpoint.open import detect
from quatrain.commands._before_torch import check_program, import_torch, refuse_smollm2
from quatrain.commands.options.shared import (
    AsOn,
    Debug,
    Emulate,
    Json,
    Model,
    TokenizerFile,
    known_devices,
    one_of,
)
from quatrain.commands.printing.progress import shown_stages
from quatrain.commands.printing.results import print_json
from quatrain.errors import CheckFailed
from quatrain.runtime.devices import DEVICES

if TYPE_CHECKING:
    from quatrain.verify.report import VerifyReport


Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT", help="The int4 checkpoint that the program was made from."
    ),
]
Devices = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="reference, gpu (gpu:NAME, see `devices`) or executorch; may be repeated. "
        "Default: auto, all that can run the program.",
        autocompletion=one_of(*DEVICES),
        callback=known_devices,
    ),
]
Prompts = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="A prompt to compare logits on; may be repeated."),
]
NewTokens = Annotated[
    int, typer.Option(metavar="N", min=1, help="Tokens to decode after each prompt.")
]


def verify(
    model: Model,
    checkpoint: Checkpoint,
    device: Devices = None,
    prompt: Prompts = None,
    new_tokens: NewTokens = 12,
    emulate: Emulate = None,
    as_on: AsOn = None,
    tokenizer: TokenizerFile = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare a program with its checkpoint: constants, logits, every operator.

    Exits with 1 if it does not compute what the checkpoint defines, and names the first wrong
    operator and layer, or the known defect by which it fails on every phone. On ExecuTorch (XNNPACK
    programs) only constants and logits are compared, the logits also without int8 activations.

    Example: `quatrain verify smollm2.pte smollm2-int4`
    """
    check_program(model)
    refuse_smollm2(checkpoint, "verify against")
    detect(checkpoint)
    import_torch()
    from quatrain.verify.checks.prompts import PROMPTS
    from quatrain.verify.verify import verify_program

    report = verify_program(
        model,
        checkpoint,
        tuple(device or ("auto",)),
        tuple(prompt or PROMPTS),
        new_tokens,
        emulate,
        shown_stages(),
        as_on,
        tokenizer,
    )
    if json:
        print_json(report.as_dict())
    else:
        _print_report(report)
    if report.passed:
        return
    if report.fatal:
        met = ", ".join(finding.defect for finding in report.fatal)
        raise CheckFailed(f"{model}: fails on every phone ({met}); {report.fatal[0].remedy}")
    emulated = f" under --emulate {emulate}" if emulate else ""
    raise CheckFailed(f"{model}: does not compute what {checkpoint} defines{emulated}")


def _print_report(report: "VerifyReport") -> None:
    wrong = [check for check in report.packed if check.problem]
    right = f"{len(report.packed) - len(wrong)} of {len(report.packed)}"
    stored = f"{right} linears and other constants are the checkpoint's"
    print(f"{report.program}: {report.scheme}, {stored}")
    for check in wrong:
        print(f"  {check.name}: {check.problem}")
    rows = [("rounding alone", report.floor), *((c.device, c.parity) for c in report.devices)]
    print(f"  {'':<16}{'logits error':>14}{'same top-1':>12}{'KL, nats':>12}{'first differs':>16}")
    for name, p in rows:
        parted = "never" if p.first_difference is None else f"token {p.first_difference + 1}"
        print(
            f"  {name:<16}{p.logits_error:>14.2e}{p.top1_agreement:>12.1%}{p.kl:>12.2e}{parted:>16}"
        )
    for check in report.devices:
        if check.layerwise is not None:
            compared = check.layerwise
            probes = f"{compared.probes} probes compared, the worst off by {compared.worst:.1e}"
            print(f"  {check.device}: {probes}")
        for problem in check.problems:
            print(f"    {problem}")
    if (unrounded := report.unrounded) is not None:
        off = f"logits error {unrounded.error:.2e}, up to {unrounded.allowed:.0e} is rounding"
        found = off if unrounded.is_computed else "not computed"
        print(f"  without rounding activations: {found}")
        if unrounded.problem:
            print(f"    {unrounded.problem}")
    for finding in report.fatal:
        print(f"  {finding}")
    print("passed" if report.passed else "FAILED")
    if report.passed:
        print(
            f"  It computes what {report.checkpoint} defines, to rounding, over texts of up to\n"
            f"  {report.tokens} tokens. How well that int4 checkpoint itself does is not said by\n"
            "  this; `quatrain evaluate` measures it."
        )
        for what in report.not_compared:
            print(f"not compared: {what}")
    for note in report.notes:
        print(f"note: {note}")
