"""For each defect one program that has it and one that does not."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from tests.support.paths import ROOT
from tests.support.programs import GraphMaker, artifact
from tests.targets.runtime_cases import (
    RUNTIME_CASES,
    dynamic,
    embedding,
    measured,
    weight_only,
)
from typer.testing import CliRunner, Result

from quatrain.commands.doctor import doctor
from quatrain.commands.inspect import inspect
from quatrain.errors import InputError
from quatrain.program import Tensor, open_program, write_program
from quatrain.program.edit.retarget import retarget
from quatrain.runtime.defects import EmulatedDefect
from quatrain.targets import (
    Finding,
    examine,
    examine_file,
    fatal_findings,
    find_gpu,
    load_defects,
    load_gpus,
)
from quatrain.targets.catalogue import load_toml
from quatrain.targets.limits import image_extents
from quatrain.targets.runtimes import known_releases, releases_that_know
from quatrain.targets.triggers import TRIGGERS

Make = Callable[[Path], Path]


def peer(name: str) -> Make:
    return lambda folder: artifact(name)


def dynamic_zero_points(dtype: str) -> Make:
    def make(folder: Path) -> Path:
        program = open_program(artifact("peer-8da4w-fp32"))
        retarget(program, "8da4w", zero_point_dtype=dtype)
        write_program(program, folder / f"{dtype}.pte")
        return folder / f"{dtype}.pte"

    return make


def rows(count: int) -> Make:
    """A dynamic int4 linear of 64 inputs that may see `count` rows."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x = maker.input("float32", 1, count, 64)
        weights = maker.constant(np.zeros((8, 32), dtype=np.uint8))
        scales = maker.constant(np.ones((2, 8), dtype=np.float32))
        out = maker.tensor("float32", 1, count, 8)
        group, null = maker.plain("int", 32), maker.plain("null")
        maker.call("et_vk.linear_q4gsw.default", x, weights, scales, group, null, out)
        path = maker.save(folder / "rows.pte", [out])
        program = open_program(path)
        retarget(program, "8da4w")
        write_program(program, path)
        return path

    return make


def prepacks(times: int) -> Make:
    def make(folder: Path) -> Path:
        maker = GraphMaker()
        constant = maker.constant(np.ones(4, dtype=np.float32))
        outs = [maker.tensor("float32", 4) for _ in range(times)]
        for out in outs:
            maker.call("et_vk.prepack.default", constant, out)
        return maker.save(folder / "prepacks.pte", outs)

    return make


def norm(dtype: str) -> Make:
    """RMS norm in parts: mean(x * x), rsqrt."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x = maker.input(dtype, 1, 8)
        square, mean, root = (maker.tensor(dtype, 1, size) for size in (8, 1, 1))
        maker.call("aten.mul.Tensor", x, x, square)
        dims, keep = maker.plain("int_list", (-1,)), maker.plain("bool", True)
        maker.call("aten.mean.dim", square, dims, keep, maker.plain("null"), mean)
        maker.call("aten.rsqrt.default", mean, root)
        return maker.save(folder / f"norm-{dtype}.pte", [root])

    return make


def mask(value: float, dtype: str = "float16") -> Make:
    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x, out = maker.input("float16", 4), maker.tensor("float16", 4)
        with np.errstate(over="ignore"):
            constant = maker.constant(np.full(4, value).astype(dtype))
        maker.call("aten.add.Tensor", x, constant, maker.plain("int", 1), out)
        return maker.save(folder / "mask.pte", [out])

    return make


def linear(name: str, dtype: str, weight_dtype: str) -> Make:
    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x, out = maker.input(dtype, 1, 8), maker.tensor(dtype, 1, 8)
        weight = maker.constant(np.ones((8, 8)).astype(weight_dtype))
        last = maker.constant(np.ones(8, dtype=np.float32))
        maker.call(name, x, weight, last if "int8" in name else maker.plain("null"), out)
        return maker.save(folder / "linear.pte", [out])

    return make


def huge(elements: int, storage: str) -> Make:
    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x = maker.input("float32", 1)
        out = maker.tensor("float32", 1, elements, storage=storage)
        maker.call("aten.sigmoid.default", x, out)
        return maker.save(folder / "huge.pte", [out])

    return make


# defect, the GPU and runtime to ask about, a program that has it, one that does not
CASES: list[tuple[str, str, str, Make, Make]] = [
    ("dq8ca-zp-binding-float", "mali-g715", "1.3", dynamic_zero_points("float32"),
     peer("peer-8da4w-fp32")),
    ("dq8ca-zp-binding-int8", "mali-g715", "1.3", peer("peer-8da4w-fp16-emb4"),
     peer("peer-8da4w-fp32")),
    ("dq8ca-m-gt-k", "adreno-7xx", "1.4", rows(65), rows(64)),
    ("embedding-q4-dynamic-oob", "mali-g710", "1.2", peer("peer-8da4w-fp32-emb4"),
     peer("peer-8da4w-fp32")),
    ("shared-constant-uaf", "desktop", "1.2", prepacks(2), prepacks(1)),
    ("rms-norm-fp16-overflow", "adreno-8xx", "1.2", norm("float16"), norm("float32")),
    ("fp16-constant-overflow", "mali-g715", "1.5", mask(-1e5), mask(-6e4)),
    ("no-16bit-storage", "no-16bit", "1.2", linear("aten.linear.default", "float16", "float16"),
     linear("aten.linear.default", "float32", "float32")),
    ("adreno740-block-index", "adreno-740", "1.2", prepacks(1), peer("peer-xnnpack-8da4w")),
    ("qcs8w-missing-shader", "adreno-8xx", "1.5",
     linear("aten._weight_int8pack_mm.default", "float32", "int8"),
     linear("aten.linear.default", "float32", "float32")),
    ("buffer-limit", "llvmpipe", "1.5", huge(2**26, "buffer"), huge(2**25, "buffer")),
    ("partial-delegation", "llvmpipe", "1.5", peer("partial"), peer("peer-8da4w-fp32")),
    *RUNTIME_CASES,
]  # fmt: skip


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    """A program whose method calls its delegate twice."""
    from quatrain.program.flatbuffer import encode
    from quatrain.program.schema import program_schema

    path = prepacks(1)(tmp_path)
    program = open_program(path)
    chain = program.root.execution_plan[0].chains[0]
    chain.instructions = chain.instructions * 2
    body = encode(program.root, program_schema())
    data = bytearray(path.read_bytes())
    base = program.segment_base
    segments = data[base:]
    size = len(body) + 32
    new_base = -(-size // 128) * 128
    header = (
        b"eh00" + (32).to_bytes(4, "little") + size.to_bytes(8, "little")
        + new_base.to_bytes(8, "little") + len(segments).to_bytes(8, "little")
    )  # fmt: skip
    root = (int.from_bytes(body[:4], "little") + 32).to_bytes(4, "little")
    head = root + body[4:8] + header + body[8:]
    path.write_bytes(head + bytes(new_base - len(head)) + segments)
    return path


def findings(path: Path, gpu: str, runtime: str | None) -> dict[str, Finding]:
    if gpu == "no-16bit":
        profile = replace(find_gpu("desktop"), storage_16bit=False)
    else:
        profile = find_gpu(gpu)
    try:
        return {f.defect: f for f in examine(open_program(path), profile, runtime)}
    except InputError:
        return {}  # no Vulkan delegate, and so none of its runtime's defects


@pytest.mark.parametrize(("defect", "gpu", "runtime", "has", "lacks"), CASES)
def test_each_defect_is_found_where_it_is(
    defect: str, gpu: str, runtime: str, has: Make, lacks: Make, tmp_path: Path, partial: Path
) -> None:
    sick = partial if defect == "partial-delegation" else has(tmp_path)
    found = findings(sick, gpu, runtime)
    assert defect in found, list(found)
    assert found[defect].occurrences and found[defect].remedy and found[defect].source
    assert defect not in findings(lacks(tmp_path), gpu, runtime)


def test_every_defect_has_a_case_and_a_trigger() -> None:
    assert {defect.id for defect in load_defects()} == {case[0] for case in CASES}
    assert {defect.trigger for defect in load_defects()} == set(TRIGGERS)


def test_every_emulated_defect_is_a_known_one() -> None:
    assert set(EmulatedDefect) < {defect.id for defect in load_defects()}


FIXED = {defect.id: defect.fixed_in for defect in load_defects() if defect.fixed_in}


@pytest.mark.parametrize("case", [case for case in CASES if case[0] in FIXED], ids=lambda c: c[0])
def test_a_fixed_runtime_is_not_blamed(
    case: tuple[str, str, str, Make, Make], tmp_path: Path
) -> None:
    defect, gpu, _, has, _ = case
    sick = has(tmp_path)
    assert defect not in findings(sick, gpu, FIXED[defect])
    assert defect in findings(sick, gpu, None)


def test_only_the_gpus_concerned_are_blamed(tmp_path: Path) -> None:
    sick = dynamic_zero_points("float16")(tmp_path)
    assert "dq8ca-zp-binding-float" not in findings(sick, "adreno-8xx", "1.3")
    suspected = findings(sick, "mali-g720", "1.3")["dq8ca-zp-binding-float"]
    assert suspected.certainty == "possible" and not suspected.applies
    everywhere = [f for f in examine(open_program(sick), None, "1.3") if f.defect.endswith("float")]
    assert [(f.certainty, f.gpus) for f in everywhere] == [
        ("certain", ["mali-g610", "mali-g710", "mali-g715"]),
        ("possible", ["mali-g720"]),
    ]


def test_an_unknown_limit_is_only_possible(tmp_path: Path) -> None:
    sick = huge(2**26, "buffer")(tmp_path)
    assert findings(sick, "xclipse", "1.5")["buffer-limit"].certainty == "possible"
    assert findings(sick, "llvmpipe", "1.5")["buffer-limit"].certainty == "certain"
    image = huge(4 * 4096 + 1, "texture3d")(tmp_path)
    assert "4097 texels" in findings(image, "llvmpipe", "1.5")["buffer-limit"].occurrences[0]


def constant_of(kind: str) -> Make:
    """A program that reads a constant of 256 MiB by one operator."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x, out = maker.input("int32", 1), maker.tensor("float32", 1, 64)
        weight = maker.constant(np.zeros((2**14, 2**12), dtype=np.float32))
        null, false = maker.plain("null"), maker.plain("bool", False)
        rest = {"aten.embedding.default": (null, false, false), "aten.linear.default": (null,)}
        first = (weight, x) if "embedding" in kind else (x, weight)
        maker.call(kind, *first, *rest[kind], out)
        return maker.save(folder / "constant.pte", [out])

    return make


@pytest.mark.parametrize(
    ("make", "remedy", "not_its"),
    [
        (huge(4 * 4097, "texture3d"), "export again with --target", "quantize"),
        (huge(2**26, "buffer"), "shorter --max-seq-len", "quantize"),
        (constant_of("aten.embedding.default"), "--embedding int4", "--max-seq-len"),
        (constant_of("aten.linear.default"), "--output-layer int4", "--max-seq-len"),
    ],
)
def test_the_remedy_for_a_tensor_too_large_fits_it(
    make: Make, remedy: str, not_its: str, tmp_path: Path
) -> None:
    found = findings(make(tmp_path), "llvmpipe", "1.5")["buffer-limit"]
    assert remedy in found.remedy and not_its not in found.remedy


def test_image_extents() -> None:
    shape = (2, 8, 6, 10)
    assert image_extents(Tensor("float32", shape, layout="width_packed")) == (3, 6, 16)
    assert image_extents(Tensor("float32", shape, layout="height_packed")) == (10, 2, 16)
    assert image_extents(Tensor("float32", shape, layout="channels_packed")) == (10, 6, 4)


def test_every_figure_has_its_source() -> None:
    names = (
        "vulkan", "fp16", "storage_16bit", "int8_dot_product", "subgroup_size",
        "max_storage_buffer", "max_image_2d", "max_image_3d",
    )  # fmt: skip
    for gpu in load_gpus():
        known = {name for name in names if getattr(gpu, name) is not None}
        assert known == set(gpu.sources), gpu.id


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(doctor)
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "100"})


def test_the_command_says_what_where_and_how_to_fix(tmp_path: Path) -> None:
    sick = dynamic_zero_points("float32")(tmp_path)
    done = run(sick, "--device", "mali-g715", "--runtime", "1.3")
    assert done.exit_code == 1
    for text in ("dq8ca-zp-binding-float", "certain", "layers.0.attention.wq", "and 11 more"):
        assert text in done.output
    fixed = tmp_path / "fixed.pte"
    assert f"quatrain retarget {sick} --linear-scheme weight-only" in done.output
    program = open_program(sick)
    retarget(program, "weight-only")
    write_program(program, fixed)
    done = run(fixed, "--device", "mali-g715", "--runtime", "1.3", "--json")
    assert done.exit_code == 0
    assert json.loads(done.output)["ok"] is True


def test_int8_zero_points_keep_8da4w_where_it_would_fail(tmp_path: Path) -> None:
    sick = dynamic_zero_points("float32")(tmp_path)
    found = findings(sick, "mali-g715", "1.3")["dq8ca-zp-binding-float"]
    assert f"{sick} --linear-scheme 8da4w --zero-point-dtype int8 -o fixed.pte" in found.remedy
    program = open_program(sick)
    retarget(program, "8da4w", zero_point_dtype="int8")
    write_program(program, sick)
    assert run(sick, "--device", "mali-g715", "--runtime", "1.3").exit_code == 0


def test_the_command_refuses_what_it_does_not_know() -> None:
    for options in (
        ("--device", "mali-g9"), ("--device", ""), ("--runtime", "newest"), ("--runtime", ""),
    ):  # fmt: skip
        assert isinstance(run(artifact("peer-8da4w-fp32"), *options).exception, InputError)
    assert isinstance(run(artifact("peer-xnnpack-8da4w")).exception, InputError)
    assert "Example:" in run("--help").output


def test_what_is_slow_is_said_and_fails_no_check(tmp_path: Path) -> None:
    slow = weight_only()(tmp_path)
    done = run(slow, "--device", "mali-g76", "--runtime", "1.3", "--json")
    assert done.exit_code == 0
    (found,) = [f for f in json.loads(done.output)["findings"] if f["hazard"] == "mali-q4-tile"]
    assert (found["kind"], found["certainty"], found["applies"]) == ("slow", "certain", False)


def test_a_kernel_that_needs_dot_products_spares_gpus_without(tmp_path: Path) -> None:
    sick = dynamic(group_size=256)(tmp_path)
    assert "dq8ca-group-sums" not in findings(sick, "mali-g76", "1.5")
    assert [finding.defect for finding in fatal_findings(open_program(sick))] == [
        "dq8ca-group-sums"
    ]


def test_operators_that_a_release_does_not_know_are_named() -> None:
    program = open_program(measured("llama_d")(Path()))
    found = {f.defect: f for f in examine(program, None, "1.0")}["unknown-operator"]
    assert found.kind == "does not load" and found.applies and not found.gpus
    said = "; ".join(found.occurrences)
    assert "et_vk.rms_norm.default, which is registered from 1.3 on" in said
    assert "torchao.choose_qparams_affine.default with 11 arguments, where 10 are read" in said
    assert releases_that_know(program.vulkan) == ["1.3", "1.4", "1.5"]


@pytest.mark.parametrize("release", ["1.9", "0.7", "2.0"])
def test_an_unknown_release_is_refused_by_name(release: str) -> None:
    with pytest.raises(InputError, match=f"{release}.*known are 1.0, 1.1, 1.2, 1.3, 1.4, 1.5"):
        examine_file(artifact("peer-8da4w-fp32"), runtime=release)


def test_every_limit_that_names_a_defect_names_a_known_one() -> None:
    limits = load_toml("runtimes.toml")["limit"]
    known = {defect.id for defect in load_defects()}
    assert {limit["defect"] for limit in limits if "defect" in limit} <= known
    assert all(limit["since"] in known_releases() and limit["source"] for limit in limits)


def test_inspect_says_what_fails_on_every_phone(tmp_path: Path) -> None:
    sick = embedding("height_packed")(tmp_path)
    app = typer.Typer()
    app.command()(inspect)
    shown = CliRunner().invoke(app, [str(sick)], env={"COLUMNS": "200"}).output
    assert "fails on every phone: embedding-height-packed, wrong" in shown
    assert "height_packed in texture3d" in shown
    report = json.loads(CliRunner().invoke(app, [str(sick), "--json"]).output)
    assert [hazard["hazard"] for hazard in report["hazards"]] == ["embedding-height-packed"]


def test_the_page_on_devices_says_which_release_runs_what_and_names_every_defect() -> None:
    page = (ROOT / "docs" / "devices.md").read_text(encoding="utf-8")
    knows = releases_that_know(open_program(measured("llama_d")(Path())).vulkan)
    for version in known_releases():
        assert f"| {version} | {'yes' if version in knows else 'no'} |" in page
    for defect in load_defects():
        assert f"| {defect.id} |" in page
