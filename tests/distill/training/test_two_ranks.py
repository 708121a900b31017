"""Two processes train one student with every kind of target."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from mobileclip.checkpoints import load_checkpoint, save_checkpoint
from tests.distill.reinforce.common import run_command, write_teacher
from tests.distill.training.ranks import run_two_ranks
from tests.distill.training.two_ranks_run import CASES


@pytest.fixture(scope="module")
def base(mixed_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student's model and merges, the teacher, and a start that is the teacher turned at random."""
    base = tmp_path_factory.mktemp("base") / "model"
    shutil.copytree(mixed_model, base)
    model = load_checkpoint(write_teacher(base)).model
    with torch.no_grad():
        turn = torch.linalg.qr(torch.randn(24, 24))[0]
        for weight in (model.image.projection.weight, model.text.projection.weight):
            weight.copy_(turn @ weight + 0.02 * torch.randn_like(weight))
    save_checkpoint(model, (base / "merges.txt.gz").read_bytes(), base / "start", {"name": "start"})
    return base


@pytest.fixture(scope="module")
def data(mixed_data: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `mixed_data` without missing photos, reinforced in `made`."""
    data = tmp_path_factory.mktemp("two") / "data"
    shutil.copytree(mixed_data, data)
    shutil.copy(data / "captioned/ö/4.jpg", data / "captioned/ö/5.jpg")
    run_command(base, data, data / "made")
    return data


@pytest.fixture(scope="module")
def out(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left of every case. If they wait for each other, the limit ends them."""
    out = tmp_path_factory.mktemp("out")
    run_two_ranks("tests.distill.training.two_ranks_run", str(base), str(data), str(out), limit=240)
    return out


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_one_student(case: str, out: Path) -> None:
    ranks = [out / case / f"rank-{rank}" for rank in range(2)]
    losses = [json.loads((folder / "losses.json").read_text()) for folder in ranks]
    assert losses[0] == losses[1] and len(losses[0]) >= 2
    before, after = (
        [torch.load(rank / name, weights_only=True) for rank in ranks] for name in ("initial.pt", "trained.pt")
    )
    for one, other in (before, after):
        # BatchNorm's statistics are of each process's own photos; the first process's are saved.
        assert all(torch.equal(value, other[name]) for name, value in one.items() if "running" not in name)
    assert not torch.equal(before[0]["text.projection.weight"], after[0]["text.projection.weight"])
    assert (out / case / "student/model.safetensors").is_file()


def test_fsdp_starts_with_the_weights_of_the_first_process(base: Path, out: Path) -> None:
    """Each process aligns the student by its own photos; the shards of two alignments must not be mixed."""
    weight = torch.load(out / "online-aligned-fsdp/rank-0/initial.pt", weights_only=True)["text.projection.weight"]
    start = load_checkpoint(base / "start").model.text.projection.weight.detach()
    # A rotation keeps the inner products of the columns.
    assert torch.allclose(weight.T @ weight, start.T @ start, atol=1e-5)
