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

# What the page asks of the server from here on, in `sent`.
COLLECT = """var sent = [], real = fetch;
    fetch = (to, how) => (how.body && sent.push(JSON.parse(how.body)), real(to, how))"""
ASK = "((text) => { at('prompt').value = text; at('form').requestSubmit() })"


@needs_chromium
def test_two_programs_side_by_side(url: str, tmp_path: Path) -> None:
    asked = {"left": LEFT, "right": RIGHT, "prompt": "w5 w17", "max_tokens": 6}
    with opened(f"{url}/?{urlencode(asked)}", tmp_path) as page:
        verdict = page.wait_for(WRITTEN)
        first = page.run("[...document.querySelectorAll('mark')].map((one) => one.textContent)")
        answers = page.run("[...document.querySelectorAll('.answer')].map((one) => one.innerText)")
        names = page.run("[...document.querySelectorAll('h2')].map((one) => one.textContent)")
        cut = page.run("document.querySelectorAll('.answer.cut').length")
        # The second while the first is answered, and so nothing.
        page.run(f"document.getElementById('prompt').value = 'w9'; {ENTER}; {ENTER}")
        page.wait_for("document.querySelectorAll('.answer').length === 4")
        page.wait_for(WRITTEN)
        narrow = page.width_at(390)
        outside = page.run("document.querySelectorAll('body > :not(main, script)').length")
        page.run("document.getElementById('right').value = 'left'")
        page.run("document.getElementById('reset').click()")
        left = page.run("document.querySelectorAll('.turn').length")
    assert names == [LEFT, RIGHT] and left == 0 and cut == 2
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


@needs_chromium
def test_a_chat_that_is_left_while_it_is_written_leaves_nothing_in_the_next(
    url: str, tmp_path: Path
) -> None:
    with opened(f"{url}/", tmp_path) as page:
        page.wait_for("right.value")
        page.run(COLLECT)
        page.run("left.value = right.value = 'slow'; max_tokens.value = 50000")
        page.run(f"{ASK}('w5')")
        page.wait_for("document.querySelector('.answer').textContent.length > 8")
        page.run("at('reset').click()")
        page.run(f"max_tokens.value = 2; {ASK}('w9')")
        verdict = page.wait_for("/Both answers.*/.exec(verdict.textContent)?.[0]")
        asked = page.run("sent.slice(-2).map((body) => body.messages.map((one) => one.content))")
    assert asked == [["w9"], ["w9"]] and "Both answers are the same" in verdict


@needs_chromium
def test_what_was_stopped_or_failed_is_no_difference(url: str, tmp_path: Path) -> None:
    with opened(f"{url}/", tmp_path) as page:
        page.wait_for("right.value")
        page.run(COLLECT)
        # One model answers one after the other: the left alone has begun.
        page.run("left.value = 'slow'; right.value = 'slow'; max_tokens.value = 50000")
        page.run(f"{ASK}('w5')")
        page.wait_for("document.querySelector('.answer').textContent.length > 8")
        page.run("at('stop').click()")
        stopped = page.wait_for("/Stopped.*/.exec(verdict.textContent)?.[0]")
        page.run(f"{ASK}('w9 '.repeat(400000))")  # more than the server takes
        page.wait_for("document.querySelectorAll('.failed').length === 2")
        page.run(f"max_tokens.value = 1; {ASK}('w11')")
        page.wait_for("/Both answers.*/.exec(verdict.textContent)")
        left, right = page.run("sent.slice(-2).map((body) => body.messages)")
        same = page.run("compare([{ text: 'w7 w7' }, { text: 'w7 w7 w7' }], true)")
    assert stopped == "Stopped before both had begun."
    assert same == "Stopped; the first 5 characters are the same."
    assert [one["role"] for one in left] == ["user", "assistant", "user"]
    assert [one["content"] for one in right] == ["w11"]  # nothing that got no answer


@needs_chromium
def test_an_address_with_a_model_that_is_not_served(url: str, tmp_path: Path) -> None:
    asked = {"left": LEFT, "right": "other", "prompt": "w5"}
    with opened(f"{url}/?{urlencode(asked)}", tmp_path) as page:
        assert page.wait_for("/no model “other” here/.exec(verdict.textContent)?.[0]")
        assert page.run("document.querySelectorAll('.turn').length") == 0


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = Path(quatrain.serve.__file__).with_name("page.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=|url\(|import ", page)
