"""From a local folder of ready-made towers to a search, in the light install: nothing of the workstation is loaded."""

from pathlib import Path

import pytest

from tests.app.cli.conftest import CommandLine
from tests.app.cli.conftest import cli as cli
from tests.app.cli.conftest import photos as photos
from tests.export.hub.conftest import Clip


@pytest.fixture
def pulled(cli: CommandLine, clip: Clip) -> Path:
    """The bundle; the guard would have reported torch, onnx, transformers, huggingface_hub and sockets."""
    result = cli("models", "pull", f"{clip.folder}")
    assert result.code == 0, result.err
    return Path(result.out.decode().strip())


def test_from_a_folder_to_a_search(cli: CommandLine, clip: Clip, pulled: Path, photos: Path) -> None:
    assert pulled == cli.home / "models" / clip.folder.name
    listed = cli("models", "list", "--json").json["installed"]
    assert {"pocket", "pocket-litert", "clip-tiny"} == {model["name"] for model in listed}
    assert cli("models").out.decode().count("clip-tiny 1\t") == 1
    assert cli("index", photos, "--model", "clip-tiny").code == 0
    found = cli("search", "a cat", "--model", "clip-tiny", "--json")
    assert found.code == 0 and len(found.json) == 6
    assert found.json == cli("search", "a cat", "--model", pulled, "--json").json
    for command in ("tag", "labels"):
        result = cli(command, "--model", "clip-tiny")
        assert (result.code, result.out) == (1, b"")
        assert result.lines == ["pocketclip: clip-tiny has no labels with fitted thresholds; search works"]
    assert cli("labels", "--model", "clip-tiny", "--json").json == []


def test_errors_are_one_line(cli: CommandLine, tiny_folder: Path, tmp_path: Path) -> None:
    pulled = Path(cli("models", "pull", tiny_folder).out.decode().strip())
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        ([tiny_folder], "--force"),
        ([tiny_folder, "--precision", "int8", "--force"], "no int8 towers, only fp32"),
        ([tmp_path / "empty"], "no vision_model.onnx with text_model.onnx"),
        (["./no-such-folder"], "there is no folder"),
        (["clip-vit-b-3"], "did you mean clip-vit-b-32?"),
    ):
        result = cli("models", "pull", *arguments)
        assert (result.code, result.out) == (4, b"") and len(result.lines) == 1 and said in result.err, result.err
    assert [path.name for path in (cli.home / "models").iterdir()] == ["clip-tiny"]

    again = cli("models", "pull", tiny_folder, "--force", "--quiet")
    assert (again.code, again.err, again.out.decode().strip()) == (0, "", str(pulled))
