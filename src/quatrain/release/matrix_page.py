"""The report of several releases as pages: one self-contained HTML file, and Markdown."""

from collections.abc import Mapping
from typing import Any

from quatrain.release.page import environment


def matrix_web_page(report: Mapping[str, Any]) -> str:
    """The report as HTML text, which loads nothing and runs nothing."""
    return environment().get_template("matrix.html").render(report=report)


def matrix_markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    return environment(markdown=True).get_template("matrix.md").render(report=report)
