"""The folders for pocketclip's own files."""

from pathlib import Path

import pytest

from mobileclip.home import models_folder, user_folders


def test_one_variable_moves_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETCLIP_HOME", str(tmp_path))
    found = user_folders()
    assert found.index.parent == tmp_path
    assert all(folder.is_relative_to(tmp_path) for folder in (found.data, found.cache, found.config))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [None, "", "here"])
def test_models_folder_is_in_the_data_folder(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POCKETCLIP_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("POCKETCLIP_HOME", value)
    assert models_folder() == user_folders().data / "models"


def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POCKETCLIP_HOME", "here")
    assert user_folders().index == tmp_path / "here" / "index.db"


@pytest.mark.parametrize("value", [None, ""])
def test_without_the_variable_the_system_decides(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POCKETCLIP_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("POCKETCLIP_HOME", value)
    assert user_folders().index.is_absolute() and "pocketclip" in str(user_folders().data)
