"""The command `pocketclip report`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import typer
from typer.testing import CliRunner

from app.cli.common import guarded
from distill.config import Recipe
from distill.config.saved import save_recipe
from distill.report.cli import report
from distill.report.page import REPORT
from tests.distill.report.conftest import Log


def test_the_command_recreates_the_report(log: Log, recipe: Recipe, tmp_path: Path) -> None:
    program = typer.Typer()
    program.command()(guarded(report))
    run = log(5)
    save_recipe(run, recipe)
    done = CliRunner().invoke(program, [str(run)])
    assert done.exit_code == 0 and done.stdout.strip() == str(run / REPORT)
    assert "<h1>shapes</h1>" in (run / REPORT).read_text() and (run / "losses.png").stat().st_size > 1000
    assert CliRunner().invoke(program, [str(tmp_path / "none")]).exit_code == 2
    failed = CliRunner().invoke(program, [str(tmp_path)])
    assert failed.exit_code == 4 and len(failed.stderr.strip().splitlines()) == 1 and failed.stdout == ""


def test_help_needs_no_drawing_packages() -> None:
    program = """
import sys
for name in ("matplotlib", "markupsafe", "jinja2", "torch"):
    sys.modules[name] = None
import distill.report.cli
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
