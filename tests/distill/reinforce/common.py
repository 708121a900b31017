"""Reinforce `mixed_data` with tiny teachers."""

from pathlib import Path
from typing import Any

import torch

from distill.reinforce.cli import reinforce
from distill.reinforce.run import Reinforcer
from mobileclip.checkpoints import save_checkpoint
from mobileclip.towers import ModelConfig, create_model
from tests.distill.mixed import BASE, SOURCES, TinyTeacher, recipe

TEXTS = {"texts": [{"name": "words", "kind": "lines", "file": "words.txt"}]}


def no_report(*_: object) -> None:
    """Ignore progress."""


def reinforced(data: Path, out: Path, teachers: list[TinyTeacher], workers: int = 0, **overrides: Any) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    plan = recipe(out.parent, SOURCES, **{**TEXTS, **overrides})
    assert Reinforcer(plan, data, out, teachers, workers).run(no_report) == 0
    return out


def write_teacher(folder: Path) -> Path:
    """Write a checkpoint of a random model to `teacher`, next to the student's model and merges."""
    torch.manual_seed(3)
    model = create_model(ModelConfig.load(folder / "tiny.toml"))
    save_checkpoint(model, (folder / "merges.txt.gz").read_bytes(), folder / "teacher", {"name": "teacher"})
    return folder / "teacher"


def run_command(folder: Path, data: Path, out: Path) -> None:
    """Run `pocketclip reinforce` with the checkpoint `teacher` of the folder: 2 augmentations, int8."""
    recipe = BASE.replace('[[open_clip]]\nmodel = "not asked for here"', '[[checkpoints]]\npath = "teacher"')
    for name, fields in SOURCES.items():
        recipe += "\n[[photos]]\n" + "".join(f"{key} = {value!r}\n" for key, value in {"name": name, **fields}.items())
    (folder / "reinforce.toml").write_text(recipe, "utf-8")
    reinforce(folder / "reinforce.toml", out, data, 2, ["reinforcement.dtype=int8"], workers=0, quiet=True)
