"""`make demo`: the whole way on a real model, and a table of what came of it."""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from quatrain.int4 import Scheme

PROMPT = "Explain in two sentences why the sky is blue."
NEW_TOKENS = 60


@dataclass(frozen=True)
class Variant:
    """One program to make: the scheme's name, the backend, and the options of `export`."""

    scheme: str
    backend: str
    options: tuple[str, ...]


VARIANTS = (
    Variant(Scheme.DYNAMIC_INT8, "vulkan", ()),
    Variant(Scheme.WEIGHT_ONLY, "vulkan", ("--weight-only-linear",)),
    Variant(Scheme.DYNAMIC_INT8, "xnnpack", ("--backend", "xnnpack")),
)


def main() -> None:
    """Fetch, quantize, export each variant, run each, and print the table.

    Exits with 1 where a program's text is not healthy (`quatrain.runtime.health`).
    """
    console = Console(width=max(120, Console().width))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="quatrain-demo-") as folder:
        checkpoint = Path(folder) / "checkpoint"
        console.rule("quantize SmolLM2-135M-Instruct")
        _quatrain("quantize", "smollm2", "-o", checkpoint)
        made = []
        for number, variant in enumerate(VARIANTS):
            console.rule(f"export and run: {variant.scheme}, {variant.backend}")
            program = Path(folder) / f"model{number}.pte"
            # A context of 512 tokens is plenty here, and what the peer is measured with.
            report = _quatrain(
                "export", checkpoint, "-o", program, "--max-seq-len", 512, *variant.options
            )
            run = _quatrain(
                "run", program, "--chat", "--prompt", PROMPT, "--max-new-tokens", NEW_TOKENS
            )
            made.append((variant, report, run))
        console.rule("the unquantized model")
        reference = _unquantized_text()
    console.print(_table(made))
    console.print(f"\n[bold]{PROMPT}[/bold]\n")
    console.print(f"[bold]unquantized:[/bold] {reference}\n", highlight=False)
    for variant, _, run in made:
        name = f"{variant.scheme}, {variant.backend}"
        console.print(f"[bold]{name}:[/bold] {run['text']}", highlight=False)
        console.print(f"({'; '.join(run['health']['problems']) or 'healthy'})\n", highlight=False)
    console.print(f"{time.perf_counter() - started:.0f} s in all")
    if any(run["health"]["problems"] for _, _, run in made):
        sys.exit("error: what a program wrote does not look like text")


def _quatrain(*arguments: Any) -> dict[str, Any]:
    """Run a verb in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, "-m", "quatrain", *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)  # it has said why
    return json.loads(done.stdout)


def _unquantized_text() -> str:
    """What the model says before quantization, greedily, in float32."""
    from quatrain.backbone.build import build_backbone
    from quatrain.checkpoint.open import open_float_model
    from quatrain.runtime.generate import generate
    from quatrain.smollm2 import fetch_smollm2
    from quatrain.tokenizer import Tokenizer

    model = open_float_model(fetch_smollm2())
    with tempfile.TemporaryDirectory() as folder:
        files = model.write_tokenizer(Path(folder))
        words = Tokenizer.load(files[0])
    backbone = build_backbone(model.config, model.tensors, max_seq_len=512)
    text = words.apply_chat([{"role": "user", "content": PROMPT}])
    generation = generate(
        backbone,
        words.encode(text, add_special_tokens=False),
        context=512,
        max_new_tokens=NEW_TOKENS,
        eos_ids=words.eos_ids,
    )
    return words.decode(generation.tokens)


def _table(made: list[tuple[Variant, dict[str, Any], dict[str, Any]]]) -> Table:
    table = Table(title="SmolLM2-135M, one int4 checkpoint")
    for heading in ("scheme", "backend", "its linears became", "runs here on"):
        table.add_column(heading, no_wrap=True)
    for heading in ("size MB", "export s", "peak MB", "decode tokens/s"):
        table.add_column(heading, justify="right")
    for variant, report, run in made:
        kernels: dict[str, int] = {}
        for row in report["linears"]:
            kernels[row["kernel"]] = kernels.get(row["kernel"], 0) + 1
        table.add_row(
            variant.scheme,
            variant.backend,
            ", ".join(f"{count} x {kernel}" for kernel, count in kernels.items()),
            run["runtime"].partition(" (")[0],
            f"{report['bytes'] / 1e6:.1f}",
            f"{sum(report['seconds'].values()):.1f}",
            f"{report['peak_rss_bytes'] / 1e6:.0f}",
            f"{run['decode_tokens_per_second']:.1f}",
        )
    return table


if __name__ == "__main__":
    main()
