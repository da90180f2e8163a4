"""The remedy of a defect, with the program's path and the option's name."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OptionName:
    """How an option is named in a remedy: `{name}`, or `{name:VALUE}` with what to set it to."""

    before: str
    after: str = ""

    def __format__(self, value: str) -> str:
        return f"{self.before}{value and f' {value}'}{self.after}"


# Of `quantize` and `export`, by which remedies are written.
_OPTIONS = ("max_seq_len", "prefill_chunk_size", "embedding", "output_layer", "group_size")
_OF_EXPORT_ALONE = ("activation_dtype",)  # a release has each GPU's program in what suits it
OF_EXPORT = {
    name: OptionName(f"--{name.replace('_', '-')}") for name in (*_OPTIONS, *_OF_EXPORT_ALONE)
}
OF_RELEASE = {
    name: OptionName(name.replace("_", "-"), " in release.toml (--spec)") for name in _OPTIONS
} | {
    name: OptionName(f"--{name.replace('_', '-')}", " (`quatrain export` alone has it)")
    for name in _OF_EXPORT_ALONE
}


def remedy_text(
    remedy: str, model: Path | str, options: Mapping[str, OptionName] = OF_EXPORT
) -> str:
    """`remedy` of the program `model`, with the names of `options`."""
    return remedy.format(model=model, **options)
