"""Invariants of the tree that no linter knows: what may not exist, and how large things may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = [ROOT / "operator" / "wattzoo", ROOT / "policies" / "wattzoo_policies"]
SOURCES = [path for package in PACKAGES for path in sorted(package.rglob("*.py"))]
CHECKED = [*SOURCES, *sorted((ROOT / "e2e").rglob("*.py")), *sorted((ROOT / "scripts").rglob("*.py"))]
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
FORBIDDEN_MODULE_NAMES = {"utils", "util", "manager", "helper", "helpers", "common", "misc"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("root", ["operator", "policies"])
def test_a_source_root_is_not_a_package(root: str) -> None:
    """`operator/__init__.py` would shadow the standard library's `operator` in every interpreter started here."""
    assert not (ROOT / root / "__init__.py").exists()


def test_the_standard_library_operator_is_importable_from_the_root() -> None:
    command = [sys.executable, "-c", "import operator; print(operator.add(1, 2))"]
    assert subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip() == "3"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_module_shadows_the_standard_library_or_hides_its_purpose(path: Path) -> None:
    assert path.stem not in FORBIDDEN_MODULE_NAMES
    if path.parent in PACKAGES:
        return  # a module inside a package never shadows a top-level one; only scripts and roots do
    assert path.stem == "__init__" or path.parent.parent.name != "operator" or path.stem not in sys.stdlib_module_names


@pytest.mark.parametrize("path", CHECKED, ids=name_of)
def test_a_file_fits_in_a_head(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= FILE_LINES_MAX


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    docstring = function.body[0] if ast.get_docstring(function) else None
    size = (function.end_lineno or function.lineno) - function.lineno + 1
    return size - ((docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0)


@pytest.mark.parametrize("path", CHECKED, ids=name_of)
def test_a_function_fits_on_a_screen(path: Path) -> None:
    long = {function.name: size for function in functions(path) if (size := body_lines(function)) > FUNCTION_LINES_MAX}
    assert not long


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_everything_public_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text())
    public = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
    ]
    assert not public
    assert ast.get_docstring(tree) or not tree.body
