"""`make demo`: all steps with a real model, and a table of the results."""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from quatrain.commands.printing.results import plain_console
from quatrain.int4 import Scheme

PROMPT = "Explain in two sentences why the sky is blue."
NEW_TOKENS = 60
FOLDER = Path("demo")  # where the checkpoint and the programs stay


@dataclass(frozen=True)
class Variant:
    """One program to make: its scheme and backend, and the options of `export`."""

    scheme: str
    backend: str
    options: tuple[str, ...]

    @property
    def program(self) -> Path:
        return FOLDER / f"smollm2-{self.scheme}-{self.backend}.pte"


VARIANTS = (
    Variant(Scheme.DYNAMIC_INT8, "vulkan", ()),
    Variant(Scheme.WEIGHT_ONLY, "vulkan", ("--weight-only-linear",)),
    Variant(Scheme.DYNAMIC_INT8, "xnnpack", ("--backend", "xnnpack")),
)


def main() -> None:
    """Fetch, quantize, export each variant, run each, and print the table.

    Exits with 1 if a program's text is not healthy (`quatrain.runtime.generation.health`).
    """
    console = plain_console()
    started = time.perf_counter()
    checkpoint = FOLDER / "checkpoint"
    console.rule("quantize SmolLM2-135M-Instruct")
    quantized = _quatrain("quantize", "smollm2", "-o", checkpoint)
    for note in quantized["notes"]:
        console.print(f"note: {note}", highlight=False)
    made = []
    for variant in VARIANTS:
        console.rule(f"export and run: {variant.scheme}, {variant.backend}")
        # A context of 512 tokens is plenty here, and what the peer is measured with.
        report = _quatrain(
            "export", checkpoint, "-o", variant.program, "--max-seq-len", 512, *variant.options
        )
        run = _quatrain(
            "run", variant.program, "--chat", "--prompt", PROMPT, "--max-new-tokens", NEW_TOKENS
        )
        made.append((variant, report, run))
    console.rule("the source itself, a Q4_1 file")
    reference = _source_text()
    console.print(_table(made))
    _print_cost(console, quantized["against_floating_point"])
    console.print(f"\n{PROMPT}\n", style="bold")
    console.print(_with_heading("the source, in float32:", f"{reference}\n"))
    for variant, report, run in made:
        _print_answer(console, variant, report, run)
    console.print(f"{time.perf_counter() - started:.0f} s in all. Go on with, for one,")
    console.print(f"  quatrain inspect {VARIANTS[0].program}", highlight=False)
    console.print(f"  quatrain verify {VARIANTS[0].program} {checkpoint}", highlight=False)
    if any(run["health"]["problems"] for _, _, run in made):
        sys.exit("error: the text that a program generated does not look healthy")


def _quatrain(*arguments: Any) -> dict[str, Any]:
    """Run a command in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, "-m", "quatrain", *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)  # it has said why
    return json.loads(done.stdout)


def _source_text() -> str:
    """What the source says, its Q4_1 blocks dequantized, greedily, in float32."""
    from quatrain.backbone.build import build_backbone
    from quatrain.checkpoint.open import open_float_model
    from quatrain.runtime.generation.generate import generate
    from quatrain.smollm2 import fetch_smollm2
    from quatrain.tokenizer import Tokenizer

    model = open_float_model(fetch_smollm2())
    with tempfile.TemporaryDirectory() as folder:
        files = model.write_tokenizer(Path(folder))
        tokenizer = Tokenizer.load(files[0])
    backbone = build_backbone(model.config, model.tensors, max_seq_len=512)
    text = tokenizer.apply_chat([{"role": "user", "content": PROMPT}])
    generation = generate(
        backbone,
        tokenizer.encode(text, add_special_tokens=False),
        context=512,
        max_new_tokens=NEW_TOKENS,
        eos_ids=tokenizer.eos_ids,
    )
    return tokenizer.decode(generation.tokens)


def _table(made: list[tuple[Variant, dict[str, Any], dict[str, Any]]]) -> Table:
    table = Table(title="SmolLM2-135M, one int4 checkpoint")
    for heading in ("scheme", "backend"):
        table.add_column(heading, no_wrap=True)
    for heading in ("size\nMB", "export\ns", "peak\nMB", "decode\ntokens/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("runs on", no_wrap=True)
    for variant, report, run in made:
        table.add_row(
            variant.scheme,
            variant.backend,
            f"{report['bytes'] / 1e6:.1f}",
            f"{sum(report['seconds'].values()):.1f}",
            f"{report['peak_rss_bytes'] / 1e6:.0f}",
            f"{run['decode_tokens_per_second']:.1f}",
            run["device"].partition(" (")[0],
        )
    return table


def _print_cost(console: Console, cost: dict[str, Any]) -> None:
    console.print(
        f"The checkpoint against floating point, on {cost['tokens']} tokens held out: perplexity "
        f"{cost['perplexity_ratio']:.3f} +- {cost['perplexity_ratio_error']:.3f} times, KL "
        f"{cost['kl']:.3f} nats, the same most likely token for {cost['top1_agreement']:.1%}.",
        highlight=False,
    )


def _print_answer(
    console: Console, variant: Variant, report: dict[str, Any], run: dict[str, Any]
) -> None:
    kernels = Counter(row["kernel"] for row in report["linears"])
    became = ", ".join(f"{count} x {kernel}" for kernel, count in kernels.items())
    console.print(_with_heading(f"{variant.program}:", run["text"]))
    health = "; ".join(run["health"]["problems"]) or "healthy"
    console.print(f"({became}; {health})\n", highlight=False)


def _with_heading(heading: str, text: str) -> Text:
    return Text.assemble((heading, "bold"), f" {text}")


if __name__ == "__main__":
    main()
