"""Imports run one way: search_space <- controllers <- nas; ray has one importer."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "search_space": {"search_space", "numpy", "yaml"},
    "controllers": {"controllers", "search_space", "numpy", "torch", "scipy", "sklearn"},
}


def imported(path):
    """Top-level packages that a module imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_lies_below_them(package):
    import sys

    for path in (ROOT / package).rglob("*.py"):
        foreign = set(imported(path)) - ALLOWED[package] - sys.stdlib_module_names
        assert not foreign, path


def test_only_one_module_imports_ray():
    importers = {path.name for path in (ROOT / "nas").rglob("*.py") if "ray" in imported(path)}
    assert importers == {"tune.py"}
