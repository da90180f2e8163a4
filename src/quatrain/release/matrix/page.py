"""The report of several releases as pages: one self-contained HTML file, and Markdown."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment

from quatrain.release.matrix.report import phones_of
from quatrain.release.report.page import environment


def matrix_web_page(report: Mapping[str, Any]) -> str:
    """The report as HTML text, which loads nothing and runs nothing."""
    return _environment().get_template("matrix.html").render(report=report)


def matrix_markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    return _environment(markdown=True).get_template("matrix.md").render(report=report)


def _environment(markdown: bool = False) -> Environment:
    found = environment(markdown)
    found.filters["phones"] = phones_of
    return found
