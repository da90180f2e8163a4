"""The chat page, in a browser."""

import re
from pathlib import Path
from urllib.parse import urlencode

from tests.support.pages.browser import needs_chromium
from tests.support.pages.devtools import opened

import quatrain.serve

LEFT, RIGHT = "8da4w", "8da4w+dq8ca-zp-binding-float"
WRITTEN = "document.getElementById('verdict').textContent.match(/^The answers differ.*/)?.[0]"

ENTER = """document.getElementById('prompt').dispatchEvent(
    new KeyboardEvent('keydown', { key: 'Enter', cancelable: true }))"""


@needs_chromium
def test_two_programs_side_by_side(url: str, tmp_path: Path) -> None:
    asked = {"left": LEFT, "right": RIGHT, "prompt": "w5 w17", "max_tokens": 6}
    with opened(f"{url}/?{urlencode(asked)}", tmp_path) as page:
        verdict = page.wait_for(WRITTEN)
        first = page.run("[...document.querySelectorAll('mark')].map((one) => one.textContent)")
        answers = page.run("[...document.querySelectorAll('.answer')].map((one) => one.innerText)")
        names = page.run("[...document.querySelectorAll('h2')].map((one) => one.textContent)")
        # The second while the first is answered, and so nothing.
        page.run(f"document.getElementById('prompt').value = 'w9'; {ENTER}; {ENTER}")
        page.wait_for("document.querySelectorAll('.answer').length === 4")
        page.wait_for(WRITTEN)
        narrow = page.width_at(390)
        outside = page.run("document.querySelectorAll('body > :not(main, script)').length")
        page.run("document.getElementById('right').value = 'left'")
        page.run("document.getElementById('reset').click()")
        left = page.run("document.querySelectorAll('.turn').length")
    assert names == [LEFT, RIGHT] and left == 0
    assert narrow <= 390 and outside == 0
    assert all(len(answer.split()) == 6 for answer in answers)
    start = next(i for i, (one, other) in enumerate(zip(*answers, strict=False)) if one != other)
    assert [answer[start:].split()[0] for answer in answers] == [one.strip() for one in first]
    assert (
        f"from character {start + 1} on: “{first[0].strip()}” and “{first[1].strip()}”" in verdict
    )


@needs_chromium
def test_a_defect_is_chosen_that_was_not_loaded(url: str, tmp_path: Path) -> None:
    with opened(f"{url}/", tmp_path) as page:
        page.wait_for("document.getElementById('right').value")
        offered = page.run(
            "[...right.querySelectorAll('optgroup:last-child option')].map((one) => one.value)"
        )
        page.run("right.value = '8da4w+dq8ca-zp-binding-int8'; prompt.value = 'w5 w17'")
        page.run("max_tokens.value = 6; right.dispatchEvent(new Event('change'))")
        page.run("document.getElementById('prompt').value = 'w5 w17'; form.requestSubmit()")
        verdict = page.wait_for("/differ|same/.exec(verdict.textContent)?.[0]")
    assert offered == ["8da4w+dq8ca-zp-binding-int8", "8da4w+dq8ca-m-gt-k"] and verdict


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = Path(quatrain.serve.__file__).with_name("page.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=|url\(|import ", page)
