"""Benchmarks, which no test runs, still find everything that they import."""

import ast
import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "benchmarks"
PROJECT = ("app", "distill", "export", "mobileclip", "tests")


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_a_benchmark_finds_everything_that_it_imports(name: str) -> None:
    """Inside functions too."""
    importlib.import_module(f"tests.benchmarks.{name}")
    for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PROJECT):
            if node.module.startswith("app.ui"):  # needs a window
                continue
            module = importlib.import_module(node.module)
            for imported in node.names:
                assert hasattr(module, imported.name), f"{node.module} has no {imported.name}"
