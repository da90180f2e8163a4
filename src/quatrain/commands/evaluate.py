"""`quatrain evaluate`: how well models predict a text, and how much they differ."""

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quatrain.checkpoint.open import is_program
from quatrain.commands._before_torch import check_model, fetched_smollm2, is_smollm2
from quatrain.commands.options.shared import AsOn, Debug, Device, Emulate, Json, TokenizerFile
from quatrain.commands.printing.progress import shown_stages
from quatrain.commands.printing.results import print_columns, print_json, warn_of_an_idle_defect
from quatrain.int4 import Scheme
from quatrain.text_files import read_text
from quatrain.with_error import with_error

if TYPE_CHECKING:
    from quatrain.verify.evaluate.evaluation import Evaluation


Models = Annotated[
    list[Path],
    typer.Argument(
        metavar="MODEL",
        help="Programs, int4 checkpoints and floating-point models; smollm2 is one of these.",
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(
        metavar="MODEL", help="The model to compare with. Default: the first MODEL of several."
    ),
]
Text = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="The text to predict. Default: a story that comes with Quatrain."
    ),
]
Tokens = Annotated[
    int, typer.Option(metavar="N", min=2, help="How many tokens of the text to read.")
]
Stride = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Let the chunks of the text overlap: each begins N tokens after the one before. "
        "Default: no overlap.",
    ),
]
Resume = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Save progress in this folder, and resume from it after an interruption; it is "
        "removed at the end.",
    ),
]
SchemeOption = Annotated[
    Scheme | None, typer.Option(help="For checkpoints: the activation scheme. Default: 8da4w.")
]


def evaluate(
    models: Models,
    reference: Reference = None,
    text: Text = None,
    tokens: Tokens = 512,
    stride: Stride = None,
    scheme: SchemeOption = None,
    device: Device = "auto",
    emulate: Emulate = None,
    as_on: AsOn = None,
    tokenizer: TokenizerFile = None,
    resume: Resume = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure perplexity and, against the first model, its ratio, KL divergence and top-1
    agreement.

    Without --text it reads a story that comes with Quatrain, which is enough to detect a broken
    program and to compare two. For a figure to publish, give a long text and a large --tokens.

    Example: `quatrain evaluate smollm2-int4 smollm2.pte --reference smollm2`
    """
    words = None if text is None else read_text(text)
    paths = models if reference is None else [reference, *models]
    for path in paths:
        if not is_smollm2(path):
            check_model(path)
    paths = [Path(fetched_smollm2(shown_stages())) if is_smollm2(p) else p for p in paths]
    labels = _labels(paths)
    with _Measuring(labels) as progress:
        from quatrain.verify.evaluate.evaluate import DEFAULT_TEXT, evaluate_models

        words = read_text(DEFAULT_TEXT) if words is None else words
        found = evaluate_models(
            paths, words, tokens, device, emulate, scheme, progress, as_on, tokenizer, stride,
            resume,
        )  # fmt: skip
    if json:
        print_json({"text": text or "built-in", "models": [asdict(one) for one in found]})
    else:
        _print_table(found, labels)
    for path in filter(is_program, paths if emulate else ()):
        warn_of_an_idle_defect(path, emulate, as_on)


def _labels(paths: list[Path]) -> dict[Path, str]:
    """What to call each model: its name, or its whole path where another has that name."""
    name_of = {path: path.absolute().name for path in paths}  # of ".", which has none, too
    names = list(name_of.values())
    return {path: name if names.count(name) == 1 else str(path) for path, name in name_of.items()}


def _print_table(found: "list[Evaluation]", labels: dict[Path, str]) -> None:
    rows = [row for one in found for row in (one, one.decode) if row is not None]
    regimes = any(row.regime for row in rows)
    measured = "perplexity", "ratio", "KL, nats", "same top-1", "bits/byte", "tokens/s"
    cells: list[tuple[str, ...]] = [("", "", *measured)]
    for row in rows:
        bits, speed = f"{row.bits_per_byte:.3f}", f"{row.predicted / row.seconds:.1f}"
        name = labels[row.model], row.regime or ""
        cells.append((*name, _perplexity(row), *_distance(row), bits, speed))
    print_columns(cells, names=2)
    predicted = found[0].predicted
    print(f"{predicted} {'token' if predicted == 1 else 'tokens'} predicted")
    for one in found:
        print(f"{labels[one.model]}: {one.device}")
    if regimes:
        print(
            "8da4w on a phone's GPU quantizes activations in prefill alone:\n"
            "a prompt is read as in the first of its rows, text is written as in the second"
        )


def _distance(one: "Evaluation") -> tuple[str, str, str]:
    """From the first model: the ratio of perplexities, with the standard error of the paired
    difference, KL divergence, and agreement."""
    if one.against_first is None or one.perplexity_ratio is None:
        return "", "", ""
    ratio = with_error(f"{one.perplexity_ratio:.3f}", one.perplexity_ratio_error, "%.3f")
    if one.perplexity_ratio > 1e6:
        ratio = ""
    far = one.against_first
    return ratio, f"{far.kl:.2e}", f"{far.top1_agreement:.1%}"


def _perplexity(one: "Evaluation") -> str:
    """With its standard error; a broken model's can be beyond all numbers."""
    if one.perplexity < 1e6:
        return with_error(f"{one.perplexity:.2f}", one.perplexity * one.loss_error, "%.2f")
    return f"e^{one.loss:.0f}"


class _Measuring:
    """Shows on standard error, as stages, that models are opened, and how far each is in the text.

    A model of two regimes reads the text twice."""

    def __init__(self, labels: dict[Path, str]) -> None:
        self._labels, self._stages = labels, shown_stages()
        self._now: tuple[Path, int] | None = None  # the model, and how many tokens it has read
        self._begun_at = 0
        self._stage = ExitStack()

    def __enter__(self) -> "_Measuring":
        self._stage.enter_context(self._stages("open the models"))
        return self

    def __exit__(self, *_: object) -> None:
        self._stage.close()

    def __call__(self, model: Path, done: int, total: int) -> None:
        if self._now is None or model != self._now[0] or done < self._now[1]:
            self._stage.close()
            self._advance = self._stage.enter_context(
                self._stages(f"measure {self._labels[model]}")
            )
            self._begun_at = done  # more than none where it goes on
        self._now = model, done
        if done > self._begun_at:
            self._advance((done - self._begun_at) / (total - self._begun_at))
