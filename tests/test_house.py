"""The rules for tests: they import only each other's shared code, in `tests/support`."""

import ast

from tests.support.paths import ROOT


def test_only_what_is_shared_is_imported_and_no_path_is_edited() -> None:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests"):
                assert str(node.module).startswith("tests.support"), f"{path}: {node.module}"
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in ("sys.path", "monkeypatch.syspath_prepend"), path
