"""Several releases at once: a cell for each method and scheme of each model."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.command_line import invoked
from tests.support.made_once import made_once
from tests.support.models.tiny_models import float_tensors, write_meta
from tests.support.pages.browser import needs_chromium, width_on_a_phone
from tests.support.pages.page_outline import PageOutline
from tests.support.release_speed import as_fast_each_time
from tests.support.thorough import thorough
from typer.testing import Result

from quatrain.errors import InputError
from quatrain.release.matrix.cells import cells_of
from quatrain.release.matrix.matrix import make_matrix
from quatrain.release.matrix.report import matrix_report
from quatrain.release.release import make_release
from quatrain.release.spec import merged_specs
from quatrain.release.tasks import functions

SPEC = """
phones = ["pixel-8"]
runtime = "1.5"
scheme = ["8da4w", "weight-only"]
text = "text.txt"
tokens = 20
prompts = ["w5 w17 w40"]
new-tokens = 2
"""


def _run(folder: Path, out: Path, *options: str) -> Result:
    words = ["release", str(folder / "model"), "-o", str(out), "--spec", str(folder / "both.toml")]
    return invoked([*words, *options])


@pytest.fixture(scope="session")
def both(shared: Path, tiny_release: Path, ready_made: Callable[..., dict]) -> Path:
    """A release in each scheme."""

    def make(folder: Path) -> None:
        (tiny_release / "both.toml").write_text(SPEC)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(functions.FUNCTIONS, "export", ready_made)
            patch.setitem(functions.FUNCTIONS, "speed", as_fast_each_time)
            done = _run(tiny_release, folder / "out")
        assert done.exit_code == 0, done.output

    return made_once(shared / "matrix", make) / "out"


def test_each_scheme_is_a_release_and_one_page_says_which_to_take(both: Path) -> None:
    manifest = json.loads((both / "manifest.json").read_text())
    assert list(manifest["cells"]) == ["model-8da4w", "model-weight-only"]
    assert "none: it was an int4 checkpoint" in (both / "report.md").read_text()
    report = json.loads((both / "report.json").read_text())
    (model,) = report["models"]
    (phone,) = model["phones"]
    files = {choice["cell"]: choice["file"] for choice in phone["choices"]}
    for cell in manifest["cells"]:
        own = json.loads((both / cell / "report.json").read_text())
        assert files[cell] == f"{cell}/{own['phones'][0]['file']}"
        scheme = own["files"][0]["scheme"]
        assert f'scheme = "{scheme}"' in (both / cell / "release.toml").read_text()
        assert (both / files[cell]).is_file()
    assert phone["why"].startswith("the first one named; without a floating-point model")
    for page in ("report.md", "report.html"):
        assert all(file in (both / page).read_text() for file in files.values())


def test_its_page_names_one_file_a_phone_and_is_readable_aloud(both: Path) -> None:
    found, text = PageOutline(), (both / "report.html").read_text()
    found.feed(text)
    assert found.tables == found.captions == 3 and found.unscoped == []
    assert found.headings == [1, 2, 2] and "<main>" in text
    first, rest = text.split("<details>", 1)
    assert first.count('data-label="file"') == 2 and "also possible" not in first
    (model,) = json.loads((both / "report.json").read_text())["models"]
    file = model["other"]["choices"][0]["file"]
    assert file.endswith("-cpu.pte")
    (row,) = re.findall(r">any other phone</th>.*?</tr>", first, re.DOTALL)
    assert file in row and f"| any other phone | `{file}` |" in (both / "report.md").read_text()
    assert "also possible" in rest
    assert 'aria-label="The other files of model"' in rest


@needs_chromium
def test_its_page_fits_a_phone(both: Path, tmp_path: Path) -> None:
    assert width_on_a_phone(both / "report.html", tmp_path) <= 360


def test_it_resumes_and_removes_what_is_no_longer_requested(
    both: Path, tiny_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*words, **arguments) -> dict:
        raise AssertionError("made again")

    for kind in functions.FUNCTIONS:
        monkeypatch.setitem(functions.FUNCTIONS, kind, refuse)
    earlier = both / "model-other"
    earlier.mkdir()
    (earlier / "manifest.json").write_text(json.dumps({"files": {"old.pte": {}}}))
    (earlier / "old.pte").touch()
    manifest = json.loads((both / "manifest.json").read_text())
    manifest["cells"]["model-other"] = {}
    (both / "manifest.json").write_text(json.dumps(manifest))
    done = _run(tiny_release, both)
    assert done.exit_code == 0, done.output
    assert not earlier.exists()
    with pytest.raises(InputError, match="holds several releases; name a new folder"):
        make_release(tiny_release / "model", both)


def test_the_plan_of_several(tiny_release: Path, both: Path, tmp_path: Path) -> None:
    done = _run(tiny_release, tmp_path / "out", "--dry-run", "--json")
    plans = json.loads(done.stdout)["cells"]
    schemes = {name: plan["files"][0]["scheme"] for name, plan in plans.items()}
    assert schemes == {"model-8da4w": "8da4w", "model-weight-only": "weight-only"}
    assert not (tmp_path / "out").exists()
    phoneless = tmp_path / "phoneless.toml"
    phoneless.write_text('scheme = ["8da4w", "weight-only"]')
    words = ["release", str(tiny_release / "model"), "-o", str(tmp_path / "out")]
    for option in ("--dry-run", "--json"):
        refused = invoked([*words, "--spec", str(phoneless), option])
        assert "is for GPU programs, but no phone is named" in str(refused.exception)
    refused = _run(tiny_release, tmp_path / "out", "--android", str(tmp_path))
    assert "--android works with one release, and this command makes 2;" in str(refused.exception)


@pytest.mark.parametrize("machines", thorough([2]))
def test_models_by_methods_on_a_cluster_are_those_of_one_process(
    tiny_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machines: int
) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install quatrain[ray]")
    from ray.cluster_utils import Cluster

    monkeypatch.setitem(functions.FUNCTIONS, "export", functions.export)
    tensors = float_tensors(vocab_size=96, seed=1)
    models = [
        str(tiny_release / "reference"),
        str(write_meta(tmp_path / "other", tensors, vocab_size=96, max_seq_len=64)),
    ]
    (tmp_path / "text.txt").write_text((tiny_release / "text.txt").read_text())
    words = tiny_release / "model" / "tokenizer.json"
    spec = SPEC.replace('["8da4w", "weight-only"]', '"8da4w"\ncpu = false')
    (tmp_path / "r.toml").write_text(f'method = ["rtn", "gptq"]\ntokenizer = "{words}"\n{spec}')
    cells = cells_of(models, merged_specs(tmp_path / "r.toml", {}))
    here = make_matrix(cells, tmp_path / "here", jobs=1)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        for _ in range(machines - 1):
            cluster.add_node(num_cpus=1)
        make_matrix(cells, tmp_path / "there", ray=cluster.address)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert len(here.releases) == 4
    made = [
        file.relative_to(here.folder)
        for file in sorted(here.folder.rglob("*"))
        if file.is_file() and ".work" not in file.parts
    ]
    assert len(made) > 4 * 7
    for file in made:
        assert (tmp_path / "there" / file).read_bytes() == (here.folder / file).read_bytes(), file


def test_cells_are_called_by_what_differs(tmp_path: Path) -> None:
    models = [str(write_meta(tmp_path / name)) for name in ("a", "b")]
    (tmp_path / "r.toml").write_text('method = ["rtn", "gptq"]\nscheme = "8da4w"')
    specs = merged_specs(tmp_path / "r.toml", {})
    cells = cells_of(models, specs)
    assert [cell.name for cell in cells] == ["a-rtn", "a-gptq", "b-rtn", "b-gptq"]
    assert [cell.spec.name for cell in cells] == ["a", "a", "b", "b"]
    assert [cell.name for cell in cells_of(models, specs[:1])] == ["a", "b"]
    with pytest.raises(InputError, match=r"a: its release would be called a-rtn, as that of .*a;"):
        cells_of([models[0], models[0]], specs)
    with pytest.raises(
        InputError, match="name = 'n' is for one model, but 2 are named; leave it out"
    ):
        cells_of(models, merged_specs(None, {"name": "n"}))
    for wrong in ("[]", "[1]", '["none"]'):
        (tmp_path / "r.toml").write_text(f"method = {wrong}")
        with pytest.raises(InputError, match="method is"):
            merged_specs(tmp_path / "r.toml", {})


def _report(kl: float | None, backend: str, failed: str | None) -> dict:
    row = {"kl": kl, "kl_error": 0.01, "ratio": None if kl is None else 1 + kl}
    file = {"file": "f.pte", "backend": backend, "bytes": 1000, "quality": [row]}
    gate = {"gate": "max-mb", "of": "f.pte", "passed": failed is None, "said": failed}
    phones = [{"id": "p", "name": "P", "file": "f.pte"}]
    said = {"name": "m", "quantized": {}, "files": [file], "phones": phones, "gates": [gate]}
    return said | {"failures": [failed] if failed else []}


def test_the_best_holds_runs_on_the_gpu_and_is_nearest_to_floating_point() -> None:
    methods, schemes = ("rtn", "gptq", "distill"), ("8da4w", "weight-only")
    specs = merged_specs(None, {"method": methods, "scheme": schemes})
    cells = cells_of(["m"], specs)
    reports = dict(
        zip(
            [cell.name for cell in cells],
            [
                _report(0.01, "vulkan", "f.pte: 9 MB, allowed 8"), _report(0.02, "xnnpack", None),
                _report(0.2, "vulkan", None), _report(0.1, "vulkan", None),
                _report(0.3, "vulkan", None), _report(None, "vulkan", None),  # not finite
            ],
            strict=True,
        )
    )  # fmt: skip
    (phone,) = matrix_report(cells, reports)["models"][0]["phones"]
    assert phone["why"] == "5 of 6 pass; it runs on the GPU; KL 0.1000 nats, the lowest of 4"
    assert [choice["kl"] for choice in phone["choices"]] == [0.1, 0.2, 0.3, None, 0.02, 0.01]
