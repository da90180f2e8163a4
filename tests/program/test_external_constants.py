"""Programs whose constants ExecuTorch exported into a `.ptd` file beside them."""

import json
from pathlib import Path

import pytest
import torch
from tests.support.command_line import invoked
from tests.support.defects.edited_methods import edited_method
from tests.support.paths import CONFORMANCE
from tests.support.programs import artifact
from typer.testing import Result

from quatrain.errors import InputError
from quatrain.program import open_program, write_program
from quatrain.program.external_constants import external_constants
from quatrain.program.file.flatbuffer import Record
from quatrain.program.plan.row_lookup import table_text
from quatrain.runtime.executorch import ExecutorchRunner
from quatrain.runtime.reference import ReferenceRunner
from quatrain.targets import examine


def run(*words: object) -> Result:
    return invoked(words, env={"COLUMNS": "200"})


def of_delegate(folder: Path) -> Path:
    """As of `external_constants_max_data_bytes` of ExecuTorch's partitioner."""
    program = open_program(artifact("peer-8da4w-fp32"))
    program.dropped_keys = set(program.named_data)
    write_program(program, folder / "external.pte")
    return folder / "external.pte"


def of_method(folder: Path) -> Path:
    """As of `external_constants` of its `ExecutorchBackendConfig`: the table of a lookup."""

    def edit(plan: Record) -> None:
        for index in plan.chains[0].instructions[0].instr_args.args[:2]:
            tensor = plan.values[index].val
            tensor.data_buffer_idx = 0
            tensor.extra_tensor_info = Record(
                table="ExtraTensorInfo", mutable_data_segments_idx=0,
                fully_qualified_name=f"table.{index}", location=1,
                device_type=0, device_index=0,
            )  # fmt: skip

    return edited_method(CONFORMANCE / "gemma3n_d.pte", edit)(folder)


MAKERS = {"a delegate's": of_delegate, "a method's": of_method}


@pytest.fixture(params=MAKERS)
def model(request, tmp_path: Path) -> Path:
    return MAKERS[request.param](tmp_path)


def test_inspect_and_doctor_say_what_they_do_not_see(model: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    shown = run("inspect", model, "--html", page)
    names = json.loads(run("inspect", model, "--json").output)["external_constants"]
    said = f"{len(names)} constants in a separate .ptd file"
    assert names and f"not shown: {said}" in shown.output and said in page.read_text()
    assert f"the values of {said}" in run("doctor", model, "--device", "desktop").output
    found = run("doctor", model, "--device", "desktop", "--json").output
    assert json.loads(found)["external_constants"] == names
    with pytest.raises(InputError, match=r"separate \.ptd file.*constants in the program"):
        ReferenceRunner(model).forward(torch.tensor([[1]]), torch.tensor([0]))


def test_two_programs_are_not_said_to_have_the_same_values(model: Path, tmp_path: Path) -> None:
    inside = {"external.pte": artifact("peer-8da4w-fp32")}.get(model.name)
    names = json.loads(run("inspect", model, "--json").output)["external_constants"]
    said = f"not by value: {len(names)} constants in a separate .ptd file"
    for other in [model, *filter(None, [inside])]:
        shown = run("inspect", model, other)
        found = json.loads(run("inspect", model, other, "--json").output)
        assert said in shown.output and found["external_constants"] == names
        assert "linears have the same weights" not in shown.output or inside is None
        assert other != inside or (found["constants"], found["compared_weights"]) == ([], 0)


def test_those_of_an_xnnpack_delegate_are_told_too(tmp_path: Path) -> None:
    """As of `export.foundation_weights_file` of ExecuTorch's `export_llm`."""
    program, path = open_program(artifact("peer-xnnpack-8da4w")), tmp_path / "external.pte"
    program.dropped_keys = set(program.named_data)
    write_program(program, path)
    names = json.loads(run("inspect", path, "--json").output)["external_constants"]
    assert set(names) == set(program.named_data)
    said = f"{len(names)} constants in a separate .ptd file"
    assert said in run("inspect", path).output and f"It needs {said}" in run("doctor", path).output
    with pytest.raises(InputError, match=r"is not in it; .* separate \.ptd file"):
        ExecutorchRunner(path)
    assert external_constants(open_program(artifact("peer-xnnpack-8da4w"))) == []


def test_the_same_defects_are_found_as_with_constants_inside(tmp_path: Path) -> None:
    inside = {finding.defect for finding in examine(open_program(artifact("peer-8da4w-fp32")))}
    assert {finding.defect for finding in examine(open_program(of_delegate(tmp_path)))} == inside


def test_a_table_that_is_not_in_the_program_is_described(tmp_path: Path) -> None:
    found = table_text(open_program(of_method(tmp_path)))
    assert found == "uint8 [96, 48] in a separate .ptd file"
    inside = table_text(open_program(CONFORMANCE / "gemma3n_d.pte"))
    assert inside == "int4 [96, 96], groups of 32"


def test_retarget_says_that_the_output_needs_them(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.pte"
    done = run("retarget", model, "--linear-scheme", "weight-only", "--slim", "-o", output)
    assert done.exit_code == 0, done.exception
    names = json.loads(run("inspect", output, "--json").output)["external_constants"]
    assert f"as {model} does, {len(names)} constants in a separate .ptd file" in done.output
    options = ("--linear-scheme", "weight-only", "--slim", "--json", "-o", output)
    assert json.loads(run("retarget", model, *options).stdout)["external_constants"] == names


def test_what_needs_their_values_is_refused(tmp_path: Path) -> None:
    model, output = of_delegate(tmp_path), tmp_path / "out.pte"
    assert run("retarget", model, "--linear-scheme", "weight-only", "-o", model).exit_code == 0
    done = run("retarget", model, "--linear-scheme", "8da4w", "-o", output)
    assert isinstance(done.exception, InputError) and ".ptd file" in str(done.exception)
    assert not output.exists()
