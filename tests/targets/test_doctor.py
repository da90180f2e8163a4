"""`quatrain doctor` says what fails where, and how to mend it; `inspect` what fails everywhere."""

import json
from pathlib import Path

import pytest
import torch
from tests.support.command_line import invoked
from tests.support.defects.driver_defects import dynamic_zero_points
from tests.support.defects.edited_methods import edited_method, of_two_delegates, under_names
from tests.support.defects.findings import findings
from tests.support.defects.kernel_defects import embedding, weight_only
from tests.support.defects.one_operator import FALSE, NULL, TRUE, Argument, T, call, number
from tests.support.paths import CONFORMANCE
from tests.support.programs import artifact
from typer.testing import Result

from quatrain.errors import InputError
from quatrain.program import open_program, write_program
from quatrain.program.edit.retarget import retarget
from quatrain.runtime.load import load_runner
from quatrain.runtime.wgpu.adapters import list_adapters
from quatrain.targets import examine


def run(*words: object) -> Result:
    return invoked(["doctor", *words], env={"COLUMNS": "100"})


PEERS_CALLS = ["sdpa-uneven-calls"]  # at most 31 tokens, one less than its context


def applying(path: Path) -> list[str]:
    found = findings(path, "mali-g715", "1.3")
    return [defect for defect, finding in found.items() if finding.applies]


def test_the_command_says_what_where_and_how_to_fix(tmp_path: Path) -> None:
    sick = dynamic_zero_points("float32")(tmp_path)
    done = run(sick, "--device", "mali-g715", "--runtime", "1.3")
    assert done.exit_code == 1
    for text in ("dq8ca-zp-binding-float", "certain", "layers.0.attention.wq", "; and 11 more"):
        assert text in " ".join(done.output.split())
    fixed = tmp_path / "fixed.pte"
    assert f"quatrain retarget {sick} --linear-scheme weight-only" in done.output
    headings = ("certain ", "conditional ", "possible ")
    lines = done.output.splitlines()[1:]
    in_short = next(at for at, line in enumerate(lines) if "not fail the check" in line)
    assert not any(line.startswith("certain dq8ca-zp") for line in lines[in_short:])
    assert not any("source: " in line for line in lines[in_short:])
    del lines[in_short]
    assert all(line.startswith(("  ", *headings)) for line in lines if line)  # wrapped ones too
    program = open_program(sick)
    retarget(program, "weight-only")
    write_program(program, fixed)
    assert applying(fixed) == PEERS_CALLS
    done = run(fixed, "--device", "mali-g715", "--runtime", "1.5", "--json")
    assert done.exit_code == 0
    assert json.loads(done.output)["passed"] is True


def test_one_that_does_not_fail_the_check_is_one() -> None:
    done = run(CONFORMANCE / "llama_w.pte", "--device", "mali-g715", "--runtime", "1.5")
    assert done.exit_code == 0 and "\n1 more does not fail the check" in done.output


def test_what_quatrain_itself_writes_has_a_remedy_other_than_that() -> None:
    for name in ("capped_w", "windows_d"):
        found = findings(CONFORMANCE / f"{name}.pte", "mali-g76", "1.5")["reduce-barrier"]
        assert found.applies and found.remedy.startswith("quatrain export CHECKPOINT --backend xnn")


def test_places_say_in_which_of_several_delegates(tmp_path: Path) -> None:
    """All delegates are examined, and what is told of an only one is told of each by its name."""
    sick = dynamic_zero_points("float32")(tmp_path)
    alone = findings(sick, "mali-g715", "1.3")["dq8ca-zp-binding-float"].occurrences
    for make, places in (
        (under_names(sick, "decode", "prefill"), ("decode: ", "prefill: ")),
        (edited_method(sick, of_two_delegates), ("delegate 0, ", "delegate 1, ")),
    ):
        found = findings(make(tmp_path), "mali-g715", "1.3")["dq8ca-zp-binding-float"]
        assert found.occurrences == [place + each for place in places for each in alone]


def test_in_float16_no_type_of_zero_points_is_a_remedy() -> None:
    found = findings(CONFORMANCE / "llama16_d.pte", "mali-g715", "1.3")["dq8ca-zp-binding-float"]
    assert "--linear-scheme weight-only" in found.remedy and "--zero-point" not in found.remedy


def test_int8_zero_points_keep_8da4w_where_it_would_fail(tmp_path: Path) -> None:
    sick = dynamic_zero_points("float32")(tmp_path)
    found = findings(sick, "mali-g715", "1.3")["dq8ca-zp-binding-float"]
    assert f"{sick} --linear-scheme 8da4w --zero-point-dtype int8 -o fixed.pte" in found.remedy
    program = open_program(sick)
    retarget(program, "8da4w", zero_point_dtype="int8")
    write_program(program, sick)
    assert applying(sick) == PEERS_CALLS


def test_several_devices_are_asked_about_together_and_a_phone_by_both_its_chips() -> None:
    model = artifact("peer-8da4w-fp32")
    asked = [run(model, "--device", one, "--runtime", "1.3", "--json")
             for one in ("galaxy-s24-exynos", "galaxy-s24-snapdragon", "pixel-8")]  # fmt: skip
    apart = [json.loads(done.output) for done in asked]
    done = run(model, "--device", "galaxy-s24", "--device", "pixel-8", "--runtime", "1.3", "--json")
    together = json.loads(done.output)
    assert together["gpus"] == ["xclipse", "adreno-7xx", "mali-g715"]
    assert together["gpus"] == [gpu for one in apart for gpu in one["gpus"]]
    assert together["phones"] == [phone for one in apart for phone in one["phones"]]
    for found in together["findings"]:
        alone = [f for one in apart for f in one["findings"] if f["defect"] == found["defect"]]
        assert found["gpus"] == [gpu for f in alone for gpu in f["gpus"]]
    shown = run(model, "--device", "galaxy-s24", "--device", "pixel-8").output
    assert "(xclipse, adreno-7xx, mali-g715, runtime unknown)" in shown
    assert shown.count("Samsung Galaxy S24, S24+") == 2


def test_the_command_refuses_what_it_does_not_know() -> None:
    for options in (
        ("--device", "mali-g9"), ("--device", ""), ("--runtime", "newest"), ("--runtime", ""),
    ):  # fmt: skip
        assert isinstance(run(artifact("peer-8da4w-fp32"), *options).exception, InputError)


NUMBER = T(())
ODD: dict[str, tuple[str, tuple[Argument, ...]]] = {
    "a sum of all": ("aten.sum.dim_IntList", (T((2, 4)), NULL, TRUE, NULL, T((1, 1)))),
    "a mean of a number": ("aten.mean.dim", (NUMBER, ("int_list", (0,)), TRUE, NULL, NUMBER)),
    "softmax of a number": ("aten._softmax.default", (NUMBER, number(0), FALSE, NUMBER)),
    "a gather along nothing": ("aten.gather.default", (T((2,)), NULL, T((2,)), FALSE, T((2,)))),
}


@pytest.mark.parametrize("form", ODD)
def test_forms_that_torch_has_and_no_phone_are_examined(form: str, tmp_path: Path) -> None:
    name, arguments = ODD[form]
    assert "texture-metadata-limit" in findings(call(name, *arguments)(tmp_path), "desktop", None)


def test_arguments_that_do_not_fit_are_one_message(tmp_path: Path) -> None:
    rotary = call("et_vk.apply_rotary_emb.default", *(NUMBER,) * 4, [NUMBER, NUMBER])
    with pytest.raises(InputError, match=r"apply_rotary_emb\) has arguments that do not fit it"):
        examine(open_program(rotary(tmp_path)))


def test_what_is_slow_is_said_and_fails_no_check(tmp_path: Path) -> None:
    slow = weight_only()(tmp_path)
    done = run(slow, "--device", "mali-g76", "--runtime", "1.3", "--json")
    assert done.exit_code == 0
    (found,) = [f for f in json.loads(done.output)["findings"] if f["defect"] == "mali-q4-tile"]
    assert (found["kind"], found["certainty"], found["applies"]) == ("slow", "certain", False)


def test_inspect_says_what_fails_on_every_phone(tmp_path: Path) -> None:
    sick = embedding("height_packed")(tmp_path)
    shown = invoked(["inspect", sick], env={"COLUMNS": "200"}).output
    assert "fails on every phone: embedding-height-packed, wrong" in shown
    assert "height_packed in texture3d" in shown
    report = json.loads(invoked(["inspect", sick, "--json"]).output)
    assert [defect["defect"] for defect in report["fatal"]] == ["embedding-height-packed"]


def test_more_tokens_than_the_context_is_a_note_that_says_how_many() -> None:
    """The phone's runtime gives finite, wrong logits for them; ours refuse them."""
    path = artifact("peer-8da4w-fp32")
    note = findings(path, "mali-g715", "1.5")["context-overrun"]
    context = int(open_program(path).metadata["get_max_context_len"])
    assert (note.kind, note.applies) == ("note", False)
    assert note.occurrences[0].endswith(f": {context} tokens")
    assert "get_max_context_len" in note.remedy and "sdpa_kv_cache_update.glsl:86" in note.source
    for device in ("reference", "gpu") if list_adapters() else ("reference",):
        runner = load_runner(path, device)
        runner.forward(torch.tensor([[1]]), torch.tensor([context - 1]))
        with pytest.raises(InputError, match=f"{context}"):
            runner.forward(torch.tensor([[1, 2]]), torch.tensor([context - 1]))


def test_a_program_for_the_cpu_is_described() -> None:
    model = artifact("peer-xnnpack-8da4w")
    done = run(model, "--runtime", "1.3")
    assert done.exit_code == 0
    for text in (
        "XnnpackBackend",
        "llama.update_cache.out (4)",
        "No catalogue of XNNPACK's defects",
    ):
        assert text in done.output
    cpu = json.loads(run(model, "--json").output)["cpu"]
    assert not [name for name in cpu["operators"] if "prim" in name or "sym_size" in name]
    inside = [delegate.backend for delegate in open_program(model).delegates]
    assert (cpu["backend"], cpu["delegates"]) == ("XnnpackBackend", len(inside))
    refused = run(model, "--device", "mali-g715").exception
    assert isinstance(refused, InputError) and "leave it out" in str(refused)


def test_methods_for_the_cpu_with_a_cache_each_fail(tmp_path: Path) -> None:
    """Measured: what the method for steps gives is another text's than `forward` has read."""
    source = artifact("peer-xnnpack-8da4w")
    done = run(under_names(source, "decode", "forward")(tmp_path))
    assert done.exit_code == 1
    assert "methods decode, forward have a KV cache each" in " ".join(done.output.split())
    assert "None of the known defects" not in done.output
    either = run(under_names(source, "base", "forward")(tmp_path))  # an app may call either alone
    assert either.exit_code == 0 and "None of the known defects" in either.output
