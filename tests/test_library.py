"""`import quatrain`: what it shows, how little it imports, and that a type checker agrees."""

import inspect
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.paths import ROOT
from tests.support.programs import artifact

import quatrain
from quatrain.export.plan.plan import QuantizeRequest

# Every name of `__all__`, with the types that a caller gets; and one name that there is not.
USES = """
from pathlib import Path
from typing import assert_type

import quatrain
from quatrain import (
    Calibration, Checkpoint, Conversation, ConvertOptions, Divergence, Evaluation, Explanation,
    ExportOptions, ExportReport, FloatModel, Generation, InputError, PhoneOutput, Program,
    ProgramRunner, ProgramsPlan, QuantizeReport, QuatrainError, Release, ReleaseSpec, Runner,
    Scheme, TextGeneration, Tokenizer, Turn, VerifyReport,
)

assert_type(quatrain.open_float_model("m.gguf"), FloatModel)
assert_type(quatrain.open_checkpoint("c"), Checkpoint)
assert_type(quatrain.quantize_model("m.gguf", "c"), QuantizeReport)
assert_type(quatrain.quantize_model("m", "c", method="rtn"), QuantizeReport)
quatrain.quantize_model("m", "c", calibration=Calibration(self_generated=8192))
assert_type(quatrain.convert_model("m", "c", ConvertOptions(embedding="int4")), QuantizeReport)
options = ExportOptions(scheme=Scheme.WEIGHT_ONLY, backend="vulkan")
assert_type(quatrain.export_checkpoint("c", "m.pte", options), ExportReport)
assert_type(quatrain.plan_programs("c"), ProgramsPlan)
assert_type(quatrain.open_program("m.pte"), Program)
quatrain.write_program(quatrain.open_program("m.pte"), "copy.pte")
assert_type(quatrain.find_tokenizer("m.pte"), Path)
runner = quatrain.load_runner("m.pte", "reference")
assert_type(runner, ProgramRunner)
sampling = quatrain.Sampling(temperature=0.7, top_p=0.9)
generation = quatrain.generate(
    runner, Tokenizer.load("t").encode("x"), context=64, sampling=sampling
)
assert_type(generation, Generation)
assert_type(quatrain.generate_text("m.pte", "x"), TextGeneration)
assert_type(Conversation("m.pte").say("x"), Turn)
assert_type(quatrain.verify_program("m.pte", "c"), VerifyReport)
evaluations = quatrain.evaluate_models(["m.pte", Path("c")], "text")
assert_type(evaluations, list[Evaluation])
assert_type(evaluations[0].against_first, Divergence | None)
written = quatrain.read_phone_output(Path("phone.txt"))
assert_type(written, PhoneOutput)
assert_type(quatrain.explain_output(written, "m.pte", "x"), Explanation)
spec = ReleaseSpec(phones=("pixel-8",), max_kl=0.2)
assert_type(quatrain.make_release("m", Path("release"), spec), Release)
def run(runner: Runner) -> None: ...
run(runner)
error: QuatrainError = InputError("wrong")
quatrain.no_such_name  # pyright: ignore[reportAttributeAccessIssue]
quatrain.quantize_model(7, "c")  # pyright: ignore[reportArgumentType]
"""


def _imported_by(code: str) -> str:
    """Which of the packages that take seconds to import are there after `code`."""
    heavy = ("torch", "executorch", "numpy", "tokenizers", "wgpu", "typer")
    code = f"import sys; {code}; print(*(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_it_imports_nothing_heavy() -> None:
    assert _imported_by("import quatrain; dir(quatrain); quatrain.InputError") == ""


def test_a_program_is_read_without_torch() -> None:
    code = f"import quatrain; quatrain.open_program({str(artifact('peer-8da4w-fp32'))!r})"
    assert "torch" not in _imported_by(code).split()


def test_gpus_are_listed_without_torch() -> None:
    assert "torch" not in _imported_by("import quatrain.runtime.wgpu.adapters").split()


def test_what_releases_does_not_import_the_compiler_meanwhile() -> None:
    """It takes seconds, and says things of its own where it is not held back."""
    assert "executorch" not in _imported_by("import quatrain.release.release").split()


def test_every_name_is_there_and_no_other() -> None:
    assert dir(quatrain) == sorted(quatrain.__all__)
    for name in quatrain.__all__:
        value = getattr(quatrain, name)
        assert value.__name__ == name
        assert value.__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        exec("quatrain.no_such_name", {"quatrain": quatrain})


def test_a_type_checker_sees_the_same(tmp_path: Path) -> None:
    assert all(name in USES for name in quatrain.__all__)
    (tmp_path / "uses.py").write_text(USES)
    settings = {
        "extraPaths": [str(ROOT / "src")],
        "typeCheckingMode": "standard",
        "reportUnnecessaryTypeIgnoreComment": "error",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_where_a_path_is_taken_a_text_is_too() -> None:
    """As docs/reference.md says, of what is called and what is filled in."""
    for name in quatrain.__all__:
        shown = getattr(quatrain, name)
        if inspect.isclass(shown) and name not in ("Calibration", "Conversation", "ReleaseSpec"):
            continue
        for parameter in inspect.signature(shown).parameters.values():
            kind = str(parameter.annotation)
            assert "str" in kind or "Callable" in kind or "Path" not in kind, f"{name}: {parameter}"


def test_paths_as_text_are_read(tmp_path: Path) -> None:
    (tmp_path / "phone.txt").write_text("1 2 3")
    assert quatrain.read_phone_output(f"{tmp_path}/phone.txt").tokens == [1, 2, 3]
    (tmp_path / "tokenizer.json").write_text("{}")
    found = quatrain.find_tokenizer(tmp_path / "else/m.pte", str(tmp_path))
    assert found == tmp_path / "tokenizer.json"


@pytest.mark.parametrize(
    "make",
    [
        lambda: quatrain.ReleaseSpec(phones="pixel-8"),  # pyright: ignore[reportArgumentType]
        lambda: quatrain.ReleaseSpec(prompts="Hello"),  # pyright: ignore[reportArgumentType]
        lambda: quatrain.Calibration(files="a.txt"),  # pyright: ignore[reportArgumentType]
        lambda: quatrain.generate_text("m.pte", "x", stop="###"),
        lambda: quatrain.Conversation("m.pte", stop="###"),
        lambda: quatrain.plan_programs("m", backends="vulkan"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_a_text_where_a_list_is_expected_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(quatrain.InputError, match="expected a list or tuple, such as "):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: quatrain.ReleaseSpec(runtime=1.5),  # pyright: ignore[reportArgumentType]
        lambda: quatrain.evaluate_models(["c"], "x", scheme="w4"),  # pyright: ignore[reportArgumentType]
        lambda: quatrain.quantize_model("m", "c", embedding="w4"),  # pyright: ignore[reportArgumentType]
        lambda: quatrain.quantize_model("m", "c", output_layer="w4"),  # pyright: ignore[reportArgumentType]
        lambda: quatrain.quantize_model("m", "c", method="w4"),  # pyright: ignore[reportArgumentType]
        lambda: quatrain.quantize_model("m", "c", backend="w4"),  # pyright: ignore[reportArgumentType]
        lambda: quatrain.ConvertOptions(embedding="w4"),  # pyright: ignore[reportArgumentType]
        lambda: QuantizeRequest(embedding="w4"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_what_would_run_as_something_else_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(quatrain.InputError, match=r"is (1\.5|'w4'), expected "):
        make()


def test_its_types_are_shipped() -> None:
    assert Path(quatrain.__file__).with_name("py.typed").is_file()
    with (ROOT / "pyproject.toml").open("rb") as file:
        data = tomllib.load(file)["tool"]["setuptools"]["package-data"]["quatrain"]
    assert "py.typed" in data
