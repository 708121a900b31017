"""Settings of an export, as callers may give them."""

from pathlib import Path
from typing import Any

import pytest

from export.config import ExportConfig
from export.formats import ExportError


@pytest.mark.parametrize("given", ["onnx, litert", ["onnx", "litert"], ("onnx", "litert")])
def test_names_are_a_list_or_one_string(given: Any, tmp_path: Path) -> None:
    config = ExportConfig("pocket", tmp_path / "out", formats=given)
    assert config.formats == ("onnx", "litert")
    assert config == ExportConfig("pocket", tmp_path / "out", formats=("onnx", "litert"))


def test_one_name_is_not_taken_apart(tmp_path: Path) -> None:
    config = ExportConfig("pocket", tmp_path / "out", formats="litert", precisions="fp16")
    assert (config.formats, config.precisions) == (("litert",), ("fp16",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formats": "floppy"}, "unknown format 'floppy': choose from onnx, litert, coreml"),
        ({"formats": ("onnx", "floppy")}, "unknown format 'floppy'"),
        ({"formats": ""}, "at least one format"),
        ({"precisions": ()}, "at least one format and one precision"),
        ({"precisions": "fp32,int8,fp32"}, "fp32 is given twice"),
        ({"threads": 0}, "threads must be at least 1, not 0"),
    ],
)
def test_a_wrong_setting_is_one_line(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        ExportConfig("pocket", tmp_path / "out", **change)
    assert "\n" not in str(caught.value)


def test_paths_are_strings_or_paths(tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    (tmp_path / "student/labels.toml").write_text("")
    out = str(tmp_path / "out")
    config = ExportConfig(str(tmp_path / "student"), out, data=str(tmp_path))
    assert config.weights == tmp_path / "student" and config.evidence == tmp_path / "student/labels.toml"
    assert ExportConfig("pocket", out, labels=str(tmp_path / "mine.toml"), data=out).evidence == tmp_path / "mine.toml"


def test_only_an_older_bundle_or_an_empty_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ExportError, match="isn't a bundle"):
        ExportConfig("pocket", str(tmp_path))
    (tmp_path / "manifest.json").touch()
    ExportConfig("pocket", str(tmp_path))
