"""`quatrain inspect` and `quatrain retarget`, as a user runs them, and the HTML page."""

import json
import shutil
from pathlib import Path

import pytest
from tests.support.command_line import invoked
from tests.support.defects.kernel_defects import embedding
from tests.support.pages.browser import dom, needs_chromium, screenshot, width_on_a_phone
from tests.support.programs import artifact
from typer.testing import Result

from quatrain.errors import InputError
from quatrain.program import open_program
from quatrain.program.inspect.html import render_page, write_page

DYNAMIC, WEIGHT_ONLY = artifact("peer-8da4w-fp32"), artifact("peer-weight-only-fp32")


def run(*words: object) -> Result:
    return invoked(words, env={"COLUMNS": "120"})


def test_inspect_prints_a_report() -> None:
    done = run("inspect", DYNAMIC)
    assert done.exit_code == 0
    for text in (
        "VulkanBackend",
        "linears: 15 8da4w (int8 zero points)",
        "0-1",
        "int4 weights",
        "context 32",
    ):
        assert text in done.output
    assert "outside the delegate: nothing" in done.output


def test_a_narrow_table_cuts_no_name(tmp_path: Path) -> None:
    shown = invoked(["inspect", DYNAMIC], env={"COLUMNS": "60"}).output
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown


def test_a_page_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    program = tmp_path / "gr\udcf6sse.pte"
    shutil.copy(DYNAMIC, program)
    write_page(open_program(program), tmp_path / "page.html")
    assert r"gr\udcf6sse.pte" in (tmp_path / "page.html").read_text()


def test_inspect_as_json() -> None:
    found = json.loads(run("inspect", DYNAMIC, "--json").output)
    assert len(found["linears"]) == 15
    assert found["linears"][0]["kernel"] == "et_vk.linear_dq8ca_q4gsw"
    assert sum(found["bytes_by_kind"].values()) == found["bytes"]


def test_inspect_compares_two() -> None:
    done = run("inspect", DYNAMIC, WEIGHT_ONLY)
    assert done.exit_code == 0
    assert "layers 0-1: attention.wq" in done.output
    assert "15 of 15 linears have the same weights" in done.output
    found = json.loads(run("inspect", DYNAMIC, DYNAMIC, "--json").output)
    assert found["same"] is True
    assert "nothing differs" in run("inspect", DYNAMIC, DYNAMIC).output


def test_names_with_brackets_are_not_markup(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("a[/b]", "m[x].pte")
    path.parent.mkdir(parents=True)
    shutil.copy(artifact("peer-8da4w-fp16-emb4"), path)
    assert f"{path}  84.0 kB" in run("inspect", path).output
    assert str(path) in run("inspect", path, DYNAMIC).output
    assert f"fix: quatrain retarget {path} --linear-scheme" in run("doctor", path).output


def test_inspect_of_another_backend_says_what_it_does_not_show() -> None:
    path = artifact("peer-xnnpack-8da4w")
    done = run("inspect", path)
    assert len(open_program(path).delegates) == 9
    assert "forward: 9 XnnpackBackend delegates" in done.output
    assert done.output.count("XnnpackBackend delegates") == 3  # the bytes, and the sentence
    assert "with their weights" in done.output and "weights of XnnpackBackend" in done.output
    assert "the contents of XnnpackBackend delegates are not shown" in done.output
    for misleading in ("unknown", "not used by a delegate", "embedding none", "linears"):
        assert misleading not in done.output


def test_inspect_compares_backends() -> None:
    for pair in ((DYNAMIC, "xnnpack"), ("xnnpack", DYNAMIC)):
        paths = [artifact("peer-xnnpack-8da4w") if path == "xnnpack" else path for path in pair]
        done = run("inspect", *paths)
        assert "9 × XnnpackBackend" in done.output and "1 × VulkanBackend" in done.output
        assert done.output.count("XnnpackBackend") <= 4
        for misleading in ("linears", "None", "[]", "{", "absent"):
            assert misleading not in done.output


def test_inspect_refuses_html_of_two(tmp_path: Path) -> None:
    done = run("inspect", DYNAMIC, WEIGHT_ONLY, "--html", tmp_path / "x.html")
    assert isinstance(done.exception, InputError)


def test_retarget_and_slim(tmp_path: Path) -> None:
    output = tmp_path / "out.pte"
    done = run("retarget", DYNAMIC, "--linear-scheme", "weight-only", "-o", output)
    assert done.exit_code == 0 and "15 linears changed to weight-only" in done.output
    assert open_program(output).vulkan
    options = ("--layers", "0", "--linears", "q, down", "--slim", "--json")
    done = run("retarget", DYNAMIC, "--linear-scheme", "weight-only", "-o", output, *options)
    found = json.loads(done.stdout)
    assert found["changed"] == ["layers.0.attention.wq", "layers.0.feed_forward.w2"]
    assert found["bytes_out"] == output.stat().st_size < found["bytes_in"]
    done = run("retarget", DYNAMIC, "--slim", "-o", output)
    assert "8 operators" in done.output
    assert isinstance(run("retarget", DYNAMIC, "-o", output).exception, InputError)


def test_retarget_in_place_however_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(DYNAMIC, tmp_path / "model.pte")
    monkeypatch.chdir(tmp_path)
    for scheme, output in (("weight-only", tmp_path / "model.pte"), ("8da4w", "model.pte")):
        done = run("retarget", "model.pte", "--linear-scheme", scheme, "-o", output)
        assert done.exit_code == 0, done.exception
        assert f"15 linears changed to {scheme}" in done.output
    assert [file.name for file in tmp_path.iterdir()] == ["model.pte"]


def test_retarget_says_what_fails_on_every_phone(tmp_path: Path) -> None:
    """Also what it was not asked to repair."""
    sick, output = embedding("height_packed")(tmp_path), tmp_path / "out.pte"
    done = run("retarget", sick, "--slim", "-o", output)
    assert done.exit_code == 0 and "fails on every phone: embedding-height-packed" in done.output
    found = json.loads(run("retarget", sick, "--slim", "-o", output, "--json").stdout)
    assert [defect["defect"] for defect in found["fatal"]] == ["embedding-height-packed"]
    sound = json.loads(run("retarget", DYNAMIC, "--slim", "-o", output, "--json").stdout)
    assert sound["fatal"] == []


def test_retarget_says_what_became_of_zero_points(tmp_path: Path) -> None:
    options = ("--linear-scheme", "8da4w", "--zero-point-dtype", "float32", "-o")
    done = run("retarget", DYNAMIC, *options, tmp_path / "out.pte")
    assert "the zero points of 15 changed to float32" in done.output
    found = json.loads(run("retarget", DYNAMIC, *options, tmp_path / "out.pte", "--json").stdout)
    assert len(found["changed"]) == 15 and found["zero_point_dtype"] == "float32"


@pytest.mark.parametrize("slim", [(), ("--slim",)])
@pytest.mark.parametrize(
    "option",
    [("--layers", "1"), ("--linears", "q"), ("--zero-point-dtype", "int8")],
)
def test_a_selection_needs_a_scheme(
    option: tuple[str, str], slim: tuple[str, ...], tmp_path: Path
) -> None:
    done = run("retarget", DYNAMIC, *slim, *option, "-o", tmp_path / "out.pte")
    assert f"{option[0]} says what --linear-scheme changes" in str(done.exception)
    assert not (tmp_path / "out.pte").exists()


def test_an_output_is_looked_at_before_the_program() -> None:
    done = run("inspect", "no program", "--html", "no folder/page.html")
    assert "--html no folder/page.html: cannot be written: there is no" in str(done.exception)
    done = run("retarget", "no program", "--slim", "-o", "/")
    assert "-o /: is a folder" in str(done.exception)


def test_retarget_brings_the_tokenizer(tmp_path: Path) -> None:
    for folder in ("named", "plain", "other", "none"):
        (tmp_path / folder).mkdir()
        shutil.copy(DYNAMIC, tmp_path / folder / "model.pte")
    names = (
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
        "chat_template.jinja", "chat_template.json",
    )  # fmt: skip
    for name in names:
        (tmp_path / "named" / f"model.{name}").write_text(f"own {name}")
        (tmp_path / "named" / name).write_text("of another program")
        (tmp_path / "plain" / name).write_text(f"shared {name}")

    def brought(folder: str, output: str) -> dict[str, str]:
        done = run(
            "retarget", tmp_path / folder / "model.pte", "--slim", "-o", tmp_path / output, "--json"
        )
        files = [Path(file) for file in json.loads(done.stdout)["tokenizer_files"]]
        return {str(file.relative_to(tmp_path)): file.read_text() for file in files}

    for folder, text in (("named", "own"), ("plain", "shared")):
        assert brought(folder, "other/new.pte") == {
            f"other/new.{name}": f"{text} {name}" for name in names
        }
    assert brought("named", "named/new.pte")["named/new.tokenizer.json"] == "own tokenizer.json"
    assert brought("named", "named/model.pte") == brought("none", "other/bare.pte") == {}


def test_the_page_is_self_contained() -> None:
    page = render_page(open_program(artifact("peer-8da4w-fp16-emb4")))
    for outside in ("http://", "https://", "src=", "@import", "<script", "url("):
        assert outside not in page
    assert page.count('class="cell"') == 15
    assert page.count("<details") >= 3


def test_the_page_of_another_backend_renders() -> None:
    assert "XnnpackBackend" in render_page(open_program(artifact("peer-xnnpack-8da4w")))


@needs_chromium
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    html = tmp_path / "page.html"
    assert run("inspect", artifact("peer-8da4w-fp16-emb4"), "--html", html).exit_code == 0
    picture = screenshot(html, tmp_path)
    assert picture[:4] == b"\x89PNG" and len(picture) > 20_000
    tree = dom(html, tmp_path)
    for wanted in ('id="sizes"', 'id="map"', 'id="chain"', "layers.1.feed_forward.w2"):
        assert wanted in tree


@needs_chromium
def test_the_page_fits_a_phone(tmp_path: Path) -> None:
    """360 pixels wide: nothing but what scrolls by itself is wider."""
    assert run("inspect", DYNAMIC, "--html", tmp_path / "page.html").exit_code == 0
    assert width_on_a_phone(tmp_path / "page.html", tmp_path) <= 360
