"""The report as pages: one self-contained HTML file, and the same in Markdown."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from quatrain.program.inspect.html import page_environment
from quatrain.release.report.heat_maps import heat_maps
from quatrain.release.spec import ANY
from quatrain.with_error import with_error

_MOST = 8  # tokens of a text that are named as those of the largest divergence
_STEPS = (0.05, 0.2, 1.0)  # nats, from which on a token is underlined once, twice, thrice
_HEIGHT = 60.0  # of the chart, in its own units: a token is one wide
_ON_ANY_CPU = "the CPU's program runs on every phone"
_MARKUP = re.compile(r"([\\`*_\[\]<>#&~$])")  # what Markdown, HTML or formulas begin with
_CONTEXT = 6  # tokens shown before one that is named


def web_page(report: Mapping[str, Any]) -> str:
    """The report as HTML text, which loads nothing and runs nothing."""
    return rendered("page.html", _page_context(report))


def markdown_page(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    return rendered("page.md", _page_context(report))


def rendered(template: str, shown: Mapping[str, Any]) -> str:
    """The `template` of this folder, HTML or Markdown by its name, filled in with `shown`."""
    environment = page_environment("quatrain.release.report")
    environment.filters |= {
        "figure": figure, "with_error": with_error, "token": _token, "cell": _cell,
        "quoted": _quoted,
    }  # fmt: skip
    return environment.get_template(template).render(**shown)


def _page_context(report: Mapping[str, Any]) -> dict[str, Any]:
    failed = [one for one in report["gates"] if not one["passed"]]
    on_cpu = [file for file in report["files"] if file["backend"] == "xnnpack"]
    return {
        "report": report,
        "failed": failed,
        "cpu": on_cpu[0] if on_cpu else None,
        "why_cpu": _ON_ANY_CPU if report["phones"] else f"no phone was named; {_ON_ANY_CPU}",
        "notes": files_of_notes(report["files"]),
        "sizes": {file["file"]: file["bytes"] for file in report["files"]},
        "releases": _releases(report),
        "known": _named_defects(report["phones"]),
        "maps": heat_maps(report["layers"]) if report["layers"] else [],
        "charts": [
            {
                "file": file,
                "tokens": _with_levels(tokens),
                **_chart(tokens),
                "most": _largest_divergences(tokens),
            }
            for file, tokens in report["shown"].items()
            if tokens
        ],
    }


def _releases(report: Mapping[str, Any]) -> list[str]:
    found = next((list(one["defects"]) for one in report["phones"] if one["defects"]), [])
    return [release for release in found if release != ANY]


def files_of_notes(files: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Each note on one of the report's `files` once, with the names of those that it is on."""
    found: dict[str, list[str]] = {}
    for file in files:
        for note in file["notes"]:
            found.setdefault(note, []).append(file["file"])
    return found


def _named_defects(phones: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every defect that is named in the table, once."""
    found: dict[str, dict[str, Any]] = {}
    for phone in phones:
        for defects in (phone["defects"] or {}).values():
            for one in [*defects["fails"], *defects["other"]]:
                found.setdefault(one["defect"], one)
    return sorted(found.values(), key=lambda one: (not one["fails"], one["defect"]))


def _with_levels(tokens: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each token with a level from 0 to 3, for how far the predictions of it are apart."""
    return [{**one, "level": sum(_height(one) >= step for step in _STEPS)} for one in tokens]


def _height(token: Mapping[str, Any]) -> float:
    """Its divergence in nats; 0 if there is none, as before the first, or it is not finite."""
    return token["kl"] or 0.0


def _chart(tokens: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The bars of a chart, scaled to the highest one."""
    values = [_height(one) for one in tokens]
    largest = max(values) or 1.0
    bars = [round(_HEIGHT * value / largest, 2) for value in values]
    return {"bars": bars, "largest": max(values), "mean": sum(values) / max(1, len(values) - 1)}


def _largest_divergences(tokens: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    order = sorted(range(1, len(tokens)), key=lambda i: (-_height(tokens[i]), i))[:_MOST]
    return [
        {
            "at": i,
            "before": "".join(one["text"] for one in tokens[max(0, i - _CONTEXT) : i]),
            "text": tokens[i]["text"],
            "kl": tokens[i]["kl"],
        }
        for i in order
    ]


def figure(value: float | None, form: str) -> str:
    """`value` in a `form` such as "%.2f", without an exponent of thousands; report.json has None if
    it is not finite."""
    if value is None:
        return "not finite"
    shown = form % value
    return f"{float(shown):.0f}" if "e+" in shown else shown


def _cell(text: str) -> str:
    """`text` in a cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())


def _quoted(text: str) -> str:
    """A text of a person or a model in a table cell, with Markdown's markup escaped."""
    return _cell(_MARKUP.sub(r"\\\1", text))


def _token(text: str) -> str:
    """The text of one token, with what of it would not show."""
    shown = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
    return shown if shown.strip() else shown.replace(" ", "\N{OPEN BOX}")
