"""Each screen and dialog can be the first that is opened: its layout uses only widgets that its own imports define."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.ui import screens

FOLDER = Path(screens.__file__).parent
MODULES = [
    ".".join(("app.ui.screens", *path.relative_to(FOLDER).with_suffix("").parts)) for path in FOLDER.rglob("*.kv")
]

RESOLVE = """
import importlib, sys
importlib.import_module(sys.argv[1])
from kivy.factory import Factory, FactoryException
from kivy.lang import Builder

def missing(rule):
    for child in rule.children:
        try:
            Factory.get(child.name)
        except FactoryException:
            yield child.name
        yield from missing(child)

ours = [rule for _, rule in Builder.rules if not (rule.ctx.filename or "style.kv").endswith("style.kv")]
print(*sorted({name for rule in ours for name in missing(rule)}), len(ours))
"""


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_layout_finds_its_widgets_without_another_screen(module: str) -> None:
    settings = {"KIVY_NO_ARGS": "1", "KIVY_NO_CONFIG": "1", "KIVY_NO_FILELOG": "1", "KIVY_LOG_MODE": "PYTHON"}
    ran = subprocess.run(
        [sys.executable, "-c", RESOLVE, module], env=os.environ | settings, capture_output=True, text=True, check=True
    )
    *missing, rules = ran.stdout.split()
    assert not missing and int(rules) > 20
