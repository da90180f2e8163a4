"""The report as a page: whole by itself, and for whoever reads it, however."""

import itertools
import json
import re
from pathlib import Path

import pytest
from tests.support.pages.browser import dom, needs_chromium, screenshot, width_on_a_phone
from tests.support.pages.devtools import opened
from tests.support.pages.page_outline import PageOutline

from quatrain.release.report.page import markdown_page, web_page


@pytest.fixture(scope="module")
def page(tiny_release: Path) -> Path:
    return tiny_release / "out" / "report.html"


def test_it_is_readable_aloud_and_loads_nothing(page: Path) -> None:
    found, text = PageOutline(), page.read_text()
    found.feed(text)
    assert found.tables == found.captions > 5
    assert found.headings[0] == 1 and set(found.headings[1:]) == {2}
    assert found.unscoped == [] and found.links == found.images_without_name == 0
    assert '<html lang="en">' in text and "<script" not in text and "<main>" in text
    # What colour would say stands in words.
    assert "PASSED: all" in text and "none that applies" in text


def test_it_says_what_phones_get_that_are_not_named(tiny_release: Path, page: Path) -> None:
    report = json.loads(page.with_suffix(".json").read_text())
    (row,) = re.findall(r"<th [^>]*>any other phone</th>.*?</tr>", page.read_text(), re.DOTALL)
    assert "tiny-cpu.pte" in row and "program runs on every phone" in row
    assert "| any other phone | any | `tiny-cpu.pte` |" in page.with_suffix(".md").read_text()
    nobody = report | {"phones": []}
    for made in (web_page(nobody), markdown_page(nobody)):
        assert "every phone" in made and "no phone was named; the CPU" in made
    no_cpu = report | {"files": [one for one in report["files"] if one["backend"] == "vulkan"]}
    assert "any other phone" not in web_page(no_cpu | {"phones": report["phones"][:1]})


def test_the_first_difference_is_marked(page: Path) -> None:
    text = page.read_text()
    assert "<mark>[" in text and "(floating point: “" in text


def test_speeds_and_heat_maps_are_read_without_colour(tiny_release: Path, page: Path) -> None:
    """The numbers stand in the cells, and what is largest in words."""
    report, text = json.loads(page.with_suffix(".json").read_text()), page.read_text()
    assert (
        "None of it is a phone's" in text and "not measured: this machine has no usable GPU" in text
    )
    assert '<td role="cell" data-label="decode" class="number">24.5</td>' in text
    layers = report["layers"]
    for id, unit in (("weights", 100), ("activations", 1)):
        table = re.search(rf'<table class="heat" id="{id}">.*?</table>', text, re.DOTALL)
        assert table and re.search(r"<strong>Largest: [\d.]+, layer [01], \w+\.</strong>", table[0])
        cells = re.findall(r"<td[^>]*>([\d.]+)</td>", table[0])
        figures = layers["weight_error"] if unit == 100 else layers["highest"]
        assert len(cells) == sum(len(column) for column in figures.values()) == 14
    markdown = page.with_suffix(".md").read_text()
    assert "| layer | q | k | v | o | gate | up | down |" in markdown


def test_the_markdown_says_the_same(tiny_release: Path) -> None:
    text = (tiny_release / "out" / "report.md").read_text()
    assert "| Google Pixel 8 | mali-g715 | `tiny-8da4w-fp32.pte` |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)
    for before, ruler in itertools.pairwise(rows):
        if set(ruler) <= set("|-:"):
            assert before.count("|") == ruler.count("|")


def test_without_floating_point_too_it_says_whose_arithmetic_a_figure_is_of(
    tiny_release: Path,
) -> None:
    report = json.loads((tiny_release / "out" / "report.json").read_text())
    (row, *_) = report["files"][0]["quality"]
    report["files"][0]["quality"] = [row, row | {"as_on": "mali-g76"}]
    alone = markdown_page(report | {"measured_against": None})
    for text in (markdown_page(report), alone, web_page(report)):
        assert f"{row['regime']} on mali-g76" in text


def test_notes_of_an_export_are_listed_with_its_file(tiny_release: Path) -> None:
    report = json.loads((tiny_release / "out" / "report.json").read_text())
    report["files"][0]["notes"] = ["groups are rounded again"]
    report["quantized"] = (report["quantized"] or {}) | {"notes": ["of an int4 source"]}
    markdown = markdown_page(report)
    assert f"\n- `{report['files'][0]['file']}`: groups are rounded again\n" in markdown
    assert "\n- quantized: of an int4 source\n" in markdown


def test_no_speed_has_an_exponent(tiny_release: Path) -> None:
    report = json.loads((tiny_release / "out" / "report.json").read_text())
    speed = {"device": "r", "machine": "m", "prompt": 1234.5, "decode": 98.76}
    report["files"][0]["speed"] |= speed | {"not_measured": ""}
    assert "| r, m | 1230 | 98.8 |" in markdown_page(report)


def test_nothing_that_was_said_is_markup_or_unseen(tiny_release: Path) -> None:
    report = json.loads((tiny_release / "out" / "report.json").read_text())
    differs = {"before": "<think>a|b", "said": "\n", "instead": " ", "after": "*c*\n# `d`"}
    answer = report["samples"][0]["answers"][0] | {"differs": differs}
    report["samples"] = [{"prompt": "<b>1</b>", "chat": False, "answers": [answer]}]
    markdown, page = markdown_page(report), web_page(report)
    assert r"**Prompt:** \<b\>1\</b\>" in markdown
    assert r"| \<think\>a\|b **[\\n]** (floating point: ␣) \*c\* \# \`d\` |" in markdown
    assert r"<mark>[\n]</mark> <em>(floating point: “␣”)</em>" in page


@needs_chromium
def test_in_a_browser_and_on_a_phone(page: Path, tmp_path: Path) -> None:
    picture = screenshot(page, tmp_path)
    assert picture[:4] == b"\x89PNG" and len(picture) > 20_000
    tree = dom(page, tmp_path)
    for id in ("phones", "quality", "speed", "defects", "weights", "activations"):
        assert f'id="{id}"' in tree
    assert "Google Pixel 8 Pro" in tree
    assert width_on_a_phone(page, tmp_path) <= 360
    with opened(page.as_uri(), tmp_path / "narrow") as narrow:
        narrow.wait_for("document.querySelectorAll('.answer').length")
        assert narrow.width_at(390) <= 390
        spaces = "getComputedStyle(document.querySelector('td.answer')).whiteSpace"
        assert narrow.run(spaces) == "pre-wrap"  # an answer's lines stay lines
