"""Two processes train as one does, although no epoch of the data is a multiple of the batch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.distill.mixed import jpeg
from tests.distill.reinforce.common import run_command, write_teacher
from tests.distill.training.ranks import run_two_ranks
from tests.distill.training.two_ranks_feeds import CASES, train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(mixed_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student's model, without BatchNorm, which would see only the photos of its process; and a teacher."""
    base = tmp_path_factory.mktemp("base") / "model"
    shutil.copytree(mixed_model, base)
    write_teacher(base)
    model = (base / "tiny.toml").read_text()
    vit = 'trunk = "test_vit"\noptions = { img_size = 48, depth = 2 }'
    (base / "tiny.toml").write_text(model.replace('trunk = "test_efficientnet"', vit))
    return base


@pytest.fixture(scope="module")
def data(mixed_data: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `mixed_data` in which every photo can be read, reinforced in `made`."""
    data = tmp_path_factory.mktemp("uneven") / "data"
    shutil.copytree(mixed_data, data)
    for number in (3, 5):
        (data / f"captioned/ö/{number}.jpg").write_bytes(jpeg(number))
    run_command(base, data, data / "made")
    return data


@pytest.fixture(scope="module")
def together(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left of every case."""
    out = tmp_path_factory.mktemp("together")
    run_two_ranks("tests.distill.training.two_ranks_feeds", str(base), str(data), str(out))
    return out


@pytest.mark.parametrize("case", [case for case in CASES if "extra" not in case])
def test_two_processes_train_as_one(case: str, base: Path, data: Path, together: Path, tmp_path: Path) -> None:
    train(case, base, data, tmp_path / case, torch.device("cpu"))
    alone, first, second = (
        json.loads((folder / case / name / "steps.json").read_text())
        for folder, name in ((tmp_path, "rank-0"), (together, "rank-0"), (together, "rank-1"))
    )
    photos = 58 if case in ("online", "reinforced") else 42
    assert first == second and len(first) == len(alone)
    if "texts" not in case:
        assert len(alone) == 2 * (photos // 10) and photos % 10
    for step, (mine, theirs) in enumerate(zip(alone, first, strict=True)):
        for name, value in mine.items():
            assert theirs[name] == pytest.approx(value, rel=2e-3, abs=2e-4), (step, name)
    weights = [torch.load(folder / case / "rank-0/trained.pt", weights_only=True) for folder in (tmp_path, together)]
    for name, value in weights[0].items():
        # The bias of attention's keys changes nothing, so only rounding moves it.
        same = torch.isclose(weights[1][name], value, atol=1e-3).chunk(3) if name.endswith("qkv.bias") else ()
        assert (same[0] & same[2]).all() if same else torch.allclose(weights[1][name], value, atol=1e-3), name


@pytest.mark.parametrize("case", [case for case in CASES if "extra" in case])
def test_two_processes_have_as_many_extra_texts(case: str, together: Path) -> None:
    """Each process draws its own, so their number isn't always that of a single process."""
    first, second = (json.loads((together / f"{case}/rank-{rank}/steps.json").read_text()) for rank in range(2))
    assert first == second and len(first) == (12 if case == "online-extra" else 2 * (42 // 10))
