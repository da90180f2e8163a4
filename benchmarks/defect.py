"""Draws what a known defect of the phone's 8da4w kernel makes of SmolLM2, by running it.

    python benchmarks/defect.py model-8da4w.pte model-weight-only.pte -o docs/defect.png

Both programs come from one int4 checkpoint; the CPU reference computes them, the second and the
third time with the zero points of activations read back wrong (`quatrain run --emulate`).
"""

import argparse
import textwrap
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from quatrain.atomic_files import whole_file
from quatrain.runtime.generation.generate import generate
from quatrain.runtime.generation.health import WatchedRunner, judge
from quatrain.runtime.reference import ReferenceRunner
from quatrain.tokenizer import Tokenizer, find_tokenizer

DEFECT = "dq8ca-zp-binding-float"
PROMPT = "Explain in two sentences why the sky is blue."
NEW_TOKENS = 56
WIDTH = 104  # characters of a line


@dataclass(frozen=True)
class Answer:
    """What one program wrote, and what `quatrain run` would warn of."""

    title: str
    text: str
    problems: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dynamic", type=Path, help="the 8da4w program")
    parser.add_argument("weight_only", type=Path, help="the weight-only program")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/defect.png"))
    options = parser.parse_args()
    answers = [
        answer(options.dynamic, "8da4w", None),
        answer(options.dynamic, f"8da4w, with {DEFECT}", DEFECT),
        answer(options.weight_only, f"weight-only, with {DEFECT}", DEFECT),
    ]
    for one in answers:
        print(f"{one.title}: {one.text}\n  {'; '.join(one.problems) or 'healthy'}")
    draw(answers, options.output)


def answer(program: Path, title: str, defect: str | None) -> Answer:
    """The greedy answer to PROMPT."""
    words = Tokenizer.load(find_tokenizer(program))
    chat = words.apply_chat([{"role": "user", "content": PROMPT}])
    runner = WatchedRunner(ReferenceRunner(program, emulate=defect))
    found = generate(
        runner,
        words.encode(chat, add_special_tokens=False),
        context=512,
        max_new_tokens=NEW_TOKENS,
        eos_ids=words.eos_ids,
    )
    health = judge(found.tokens, runner.entropies, found.stopped)
    return Answer(title, words.decode(found.tokens), health.problems)


def draw(answers: list[Answer], path: Path) -> None:
    """Write the answers below one another as a picture."""
    figure = Figure(figsize=(9, 4.2), facecolor="white")
    style = {"family": "monospace", "fontsize": 8.5, "va": "top"}
    figure.text(0.02, 0.96, f"> {PROMPT}", weight="bold", **style)
    for place, one in enumerate(answers):
        top = 0.84 - 0.28 * place
        color = "#b00020" if one.problems else "#1b6e3c"
        figure.text(0.02, top, one.title, color=color, weight="bold", **style)
        lines = textwrap.wrap(" ".join(one.text.split()), WIDTH, max_lines=3, placeholder=" ...")
        figure.text(0.02, top - 0.06, "\n".join(lines), **style)
        verdict = one.problems[0] if one.problems else "healthy"
        figure.text(0.02, top - 0.20, textwrap.shorten(verdict, WIDTH), color=color, **style)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
