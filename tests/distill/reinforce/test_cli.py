"""The command `pocketclip reinforce`."""

import shutil
from pathlib import Path

from distill.reinforce.shards import Sidecar
from mobileclip.checkpoints import load_checkpoint
from tests.distill.reinforce.common import run_command, write_teacher


def test_the_command_stores_the_embeddings_of_its_teacher(data: Path, mixed_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(mixed_model, tmp_path / "model"))
    teacher = write_teacher(folder)
    run_command(folder, data, tmp_path / "out")
    sidecar = Sidecar.load(tmp_path / "out")
    assert sidecar.complete and sidecar.policy.augmentations == 2 and sidecar.policy.dtype == "int8"
    (entry,) = sidecar.teachers
    assert entry.dim == 24 == load_checkpoint(teacher).model.config.embed_dim and entry.px == 48
