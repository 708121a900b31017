"""The benches, which no test runs, still find what they measure."""

import importlib
from pathlib import Path

import pytest

BENCHES = sorted(path.stem for path in (Path(__file__).parent / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", BENCHES)
def test_a_bench_finds_all_that_it_imports(name: str) -> None:
    importlib.import_module(f"tests.benchmarks.{name}")
