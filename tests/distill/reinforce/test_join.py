"""DataCompDR's tars and the pictures that they describe become tars that a recipe can train on."""

import subprocess
import sys
from pathlib import Path

import pytest

from distill.data.tars import read_datacompdr, read_index
from distill.reinforce.join import join_tars
from distill.reinforce.shards import Sidecar
from mobileclip.errors import PocketclipError
from tests.distill.mixed import jpeg
from tests.distill.reinforce.datacompdr import DIM, write_pictures, write_reinforced


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Two of DataCompDR's tars with four samples each; a picture is missing."""
    for tar in range(2):
        write_reinforced(tmp_path / f"dr/{tar:08}.tar", range(4 * tar, 4 * tar + 4))
    return tmp_path


@pytest.mark.parametrize("same_names", [True, False])
def test_samples_are_joined_by_uid(tars: Path, same_names: bool) -> None:
    """Whether the pictures are in tars of the same names, or anywhere."""
    parts = [[3, 1, 0], [7, 6, 5, 4]] if same_names else [[7, 3, 1], [0, 6, 4, 5]]
    for number, uids in enumerate(parts):
        write_pictures(tars / f"pictures/{number:08}.tar" if same_names else tars / f"pictures/{number:05}.tar", uids)
    done = list(join_tars(tars / "dr", tars / "pictures", tars / "joined"))
    assert [(tar.path.name, tar.joined, tar.samples) for tar in done] == [
        ("00000000.tar", 3, 4),
        ("00000001.tar", 4, 4),
    ]
    for tar in done:
        samples, omissions = read_index(tar.path)
        before = {sample.key: sample for sample in read_index(tars / "dr" / tar.path.name)[0]}
        assert not omissions and len(samples) == tar.joined
        for sample in samples:
            number = int(sample.key, 16)
            assert sample.read("jpg") == jpeg(number) and "url.txt" not in sample.members
            assert sample.read("npz") == before[sample.key].read("npz")
            stored = read_datacompdr(sample)
            assert stored.texts == (f"caption {number}", f"synthetic {number}") and stored.captions == 1
    sidecar = Sidecar.load(tars / "joined")
    assert sidecar.layout == "datacompdr" and sum(teacher.dim for teacher in sidecar.teachers) == DIM


def test_a_second_run_continues_and_keeps_what_is_there(tars: Path) -> None:
    write_pictures(tars / "pictures/0.tar", list(range(8)))
    (tars / "joined").mkdir()
    (tars / "joined/00000000.tar").write_bytes(b"there")
    (tars / "joined/reinforcement.json").write_text("mine")
    assert [tar.path.name for tar in join_tars(tars / "dr", tars / "pictures", tars / "joined")] == ["00000001.tar"]
    assert (tars / "joined/00000000.tar").read_bytes() == b"there"
    assert (tars / "joined/reinforcement.json").read_text() == "mine"
    assert list(join_tars(tars / "dr", tars / "pictures", tars / "joined")) == []


def test_the_command_names_what_is_missing(tars: Path) -> None:
    write_pictures(tars / "pictures/0.tar", [90, 91])
    with pytest.raises(PocketclipError, match="none of its 4 samples has its picture"):
        list(join_tars(tars / "dr", tars / "pictures", tars / "joined"))
    assert not list((tars / "joined").iterdir()), "nothing is left of a tar that failed"

    def run(pictures: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "distill.reinforce.join", "dr", pictures, "joined"]
        return subprocess.run(command, cwd=tars, capture_output=True, text=True)

    assert run("nowhere").returncode == 2 and "no .tar found" in run("nowhere").stderr
    write_pictures(tars / "pictures/0.tar", [1, 5])
    done = run("pictures")
    assert done.returncode == 0 and "joined/00000000.tar: 1 of 4 samples have a picture" in done.stdout
