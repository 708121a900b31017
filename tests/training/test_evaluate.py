"""`pocketclip evaluate` through the command line, on a checkpoint."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def evaluate(tmp_path: Path):
    environment = {**os.environ, "POCKETCLIP_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app", "evaluate", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return run


def test_captions_as_json_and_for_people(evaluate, student: Path, data: Path) -> None:
    options = ["--captions", data / "shapes/captions.jsonl", "--splits", data / "shapes/splits.csv", "--split", "test"]
    done = evaluate(student, *options, "--limits", "--json")
    result = json.loads(done.stdout)
    assert (result["n_photos"], result["n_captions"], result["n_failed"]) == (16, 32, 0)
    assert set(result["text_to_photo"]) == set(result["photo_to_text"]) == {"R@1", "R@5", "R@10"}
    assert all(0 <= rate <= 1 for rate in result["text_to_photo"].values())
    assert result["limits"]["colour"]["n"] > 0 and done.stderr == ""
    text = evaluate(student, *options).stdout
    assert "text to photo" in text and f"R@1 {100 * result['text_to_photo']['R@1']:.1f} %" in text


def test_labels_with_an_unreadable_photo(evaluate, student: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "colours", tmp_path / "colours")
    (tmp_path / "colours/images/81.png").write_bytes(b"")
    result = json.loads(
        evaluate(student, "--labels", tmp_path / "colours/labels.csv", "--split", "test", "--json").stdout
    )
    assert (result["n"], result["classes"], result["n_failed"]) == (15, 4, 1)
    assert {"top1", "top5", "mean_per_class"} <= set(result)


def test_wrong_usage_and_missing_files_are_one_line(evaluate, student: Path, data: Path, tmp_path: Path) -> None:
    assert evaluate(student).returncode == 2
    for arguments, said in (
        ((student, "--captions", tmp_path / "no.csv"), "cannot be read"),
        ((student, "--labels", data / "colours/labels.csv", "--split", "nothing"), "no row in the split"),
        ((student, "--labels", data / "colours/labels.csv", "--column", "x"), "columns `file` and `x`"),
        ((tmp_path / "no-model", "--labels", data / "colours/labels.csv"), "no-model"),
    ):
        failed = evaluate(*arguments)
        assert failed.returncode == 4 and said in failed.stderr and failed.stdout == ""
        assert len(failed.stderr.strip().splitlines()) == 1


def test_a_bundle_is_evaluated_without_torch(data: Path) -> None:
    """The light install measures bundles: torch and its friends are made impossible to import."""
    program = f"""
import sys
for name in ("torch", "torchvision", "timm", "safetensors", "open_clip", "transformers", "matplotlib", "onnx"):
    sys.modules[name] = None
from pathlib import Path
from distill.evaluate.cli import evaluate
evaluate("pocket", labels=Path({str(data / "colours/labels.csv")!r}), split="test", as_json=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n"] == 16
