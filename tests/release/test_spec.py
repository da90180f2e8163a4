"""release.toml: its keys are the options' names, and what is not known is refused by name."""

from pathlib import Path

import pytest
from tests.support.releases import merged_spec

from quatrain.errors import InputError
from quatrain.release.spec import ReleaseSpec, write_spec

WRONG = {
    "an unknown key": (
        "max_kl = 1",
        r"'max_kl' is not a key of a release, expected one of name, phones",
    ),
    "a text for a list": ('phones = "pixel-8"', "phones is 'pixel-8', expected a list of texts"),
    "a text for a number": ('max-kl = "0.1"', "max-kl is '0.1', expected a number"),
    "a flag for a number": ("tokens = true", "tokens is True, expected a whole number"),
    "an unknown method": (
        'method = "best"',
        "method is 'best', expected one of gptq, distill, rtn",
    ),
    "an unknown scheme": (
        'scheme = "int4"',
        "scheme is 'int4', expected one of 8da4w, weight-only",
    ),
    "no group size": ("group-size = 48", "group-size is 48, expected one of 16, 32, 64, 128, 256"),
    "no number": ("max-kl = nan", "max-kl is nan, expected a number above 0"),
    "a negative gate": ("max-mb = -1", "max-mb is -1, expected a number above 0"),
    "a path for a name": ('name = "../there"', r"name is '../there', expected letters, digits and"),
    "no prompts": ("prompts = []", "prompts is empty"),
    "an unknown release": ('runtime = "9.9"', "nothing is known of ExecuTorch runtime '9.9'"),
    "a digest": ('reference = "sha256:00"', "^reference is the digest sha256:00 of a model whose"),
    "no TOML": ("max-kl: 1", "cannot be read as TOML"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "release.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        merged_spec(file, {})


def test_options_go_before_the_file_and_paths_are_meant_from_it(tmp_path: Path) -> None:
    file = tmp_path / "release.toml"
    stated = 'phones = ["pixel-8"]\nmax-kl = 1\ntext = "a.txt"\nscheme = "weight-only"\n'
    file.write_text(stated, encoding="utf-16")  # as PowerShell's `>` has it
    spec = merged_spec(file, {"max_kl": 0.5, "runtime": None})
    assert (spec.phones, spec.max_kl, spec.text) == (("pixel-8",), 0.5, tmp_path / "a.txt")
    written = tmp_path / "again.toml"
    write_spec(written, spec)
    assert merged_spec(written, {}) == spec
    write_spec(written, ReleaseSpec())
    assert written.read_text() == ""
