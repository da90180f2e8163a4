"""The seed's case from end to end: train, export in both schemes, run with and without the
defect of a phone's driver, and show what is said.

    python examples/tiso/main.py --output build/tiso
"""

import argparse
import json
from pathlib import Path

import torch
from speak import Speaker, Speech
from task import LENGTH, random_text, spoken

from quatrain.export import ExportOptions, export_checkpoint
from quatrain.quiet import quiet
from quatrain.runtime.load import load_runner

with quiet():  # torchao warns of what it lacks
    from train import train

DEFECT = "dq8ca-zp-binding-float"  # Mali-G710 and G715: negative zero points misread
RUNS = (("8da4w", None), ("8da4w", DEFECT), ("weight-only", None), ("weight-only", DEFECT))


def main() -> None:
    """Writes results.json: for each run the share of right codes and of texts that ended."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--output", type=Path, default=Path("build/tiso"))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--texts", type=int, default=16)
    options = parser.parse_args()

    with quiet():
        losses = train(options.output / "checkpoint", options.steps)
    print(f"trained {options.steps} steps, loss {losses[0]:.2f} to {losses[-1]:.4f}")
    texts = random_text(options.texts, torch.Generator().manual_seed(1))
    expected = spoken(texts).tolist()
    results, shown = {}, {"what should be said": Speech(expected[0], True)}
    for scheme, defect in RUNS:
        program = options.output / f"{scheme}.pte"
        if not defect:
            export_checkpoint(options.output / "checkpoint", program, ExportOptions(scheme=scheme))
        runner = load_runner(program, "reference", emulate=defect)
        speaker = Speaker(runner, options.output / "checkpoint" / "host" / "host.safetensors")
        said = [speaker.speak(text) for text in texts]
        name = f"{scheme}, {'with the defect' if defect else 'sound driver'}"
        right = [speech.right(codes) for speech, codes in zip(said, expected, strict=True)]
        results[name] = {
            "right": sum(right) / len(right),
            "ended": sum(speech.ended for speech in said) / len(said),
        }
        shown[name] = said[0]
        print(f"{name}: {results[name]['right']:.0%} of codes right, "
              f"{results[name]['ended']:.0%} of texts came to an end")  # fmt: skip
    (options.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    plot(shown, options.output / "tiso.png")


def plot(shown: dict[str, Speech], path: Path) -> None:
    """One text as each run says it: code over time, a line where speech should end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(shown), 1, figsize=(8, 9), sharex=True, sharey=True)
    for axis, (name, speech) in zip(axes, shown.items(), strict=True):
        axis.step(range(len(speech.codes)), speech.codes, where="post", marker=".")
        axis.axvline(LENGTH, color="grey", linestyle=":")
        axis.set_title(name if speech.ended else f"{name}: never ends", loc="left", fontsize=10)
        axis.set_ylabel("code")
    axes[-1].set_xlabel("step")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
