"""`pocketclip evaluate` through the command line, on a checkpoint and on the embedded bundle."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

Evaluate = Callable[..., Result]

EVIDENCE = """
captioned = ["shapes"]
[[label]]
name = "disc"
group = "shapes"
prompts = ["a disc"]
evidence = { words = ["disc"] }
[[label]]
name = "red things"
group = "colors"
prompts = ["a red disc", "a red square"]
evidence = { words = ["red"], classes = ["colors:red"] }
"""


@pytest.fixture
def evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """Run the command in this process, with errors turned into exit codes."""
    from app.cli.common import guarded
    from distill.evaluate.cli import evaluate as command

    monkeypatch.setenv("POCKETCLIP_HOME", str(tmp_path / "home"))
    program = typer.Typer()
    program.command()(guarded(command))
    return lambda *arguments: CliRunner().invoke(program, list(map(str, arguments)))


def test_the_command_is_part_of_the_program(student: Path, data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app", "evaluate", str(student), "--labels", str(data / "colors/labels.csv")]
    environment = {**os.environ, "POCKETCLIP_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "" and "32 photos, 4 classes" in done.stdout


def test_captions_as_json_and_as_tables(evaluate: Evaluate, student: Path, data: Path) -> None:
    options = ["--captions", data / "shapes/captions.jsonl", "--splits", data / "shapes/splits.csv", "--split", "test"]
    done = evaluate(student, *options, "--limits", "--json")
    result = json.loads(done.stdout)
    assert (result["n_photos"], result["n_captions"], result["n_failed"]) == (16, 32, 0)
    assert set(result["text_to_photo"]) == set(result["photo_to_text"]) == {"R@1", "R@5", "R@10"}
    for direction in ("text_to_photo", "photo_to_text"):
        for name, rate in result[direction].items():
            low, high = result["intervals"][direction][name]
            assert 0 <= low <= rate <= high <= 1
    assert result["limits"]["color"]["n"] > 0 and done.stderr == ""
    text = evaluate(student, *options, "--limits").stdout
    rate, (low, high) = result["text_to_photo"]["R@5"], result["intervals"]["text_to_photo"]["R@5"]
    assert "16 photos, 32 captions" in text and "text → photo" in text and "color" in text
    assert f"{100 * rate:.1f} % ({100 * low:.1f}–{100 * high:.1f})" in text


def test_labels_with_an_unreadable_photo(evaluate: Evaluate, student: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "colors", tmp_path / "colors")
    (tmp_path / "colors/images/21.png").write_bytes(b"")
    options = ["--labels", tmp_path / "colors/labels.csv", "--split", "test"]
    result = json.loads(evaluate(student, *options, "--json").stdout)
    assert (result["n"], result["classes"], result["n_failed"]) == (15, 4, 1)
    assert set(result["intervals"]) == {"top1", "top5", "mean_per_class"}
    assert "15 photos, 4 classes, 1 could not be read" in evaluate(student, *options).stdout


def test_classes_of_other_splits_compete_too(evaluate: Evaluate, student: Path, data: Path, tmp_path: Path) -> None:
    table = (data / "colors/labels.csv").read_text().replace(",red,test", ",green,test")
    (data / "colors/other.csv").write_text(table)
    result = json.loads(evaluate(student, "--labels", data / "colors/other.csv", "--split", "test", "--json").stdout)
    assert (result["n"], result["classes"]) == (16, 4)


def test_spellings_of_a_class_are_one_class(evaluate: Evaluate, student: Path, data: Path, tmp_path: Path) -> None:
    """Two classes with the same prompts would tie, and ties count against the model."""
    shutil.copytree(data / "colors", tmp_path / "colors")
    table = (data / "colors/labels.csv").read_text()
    plain = json.loads(evaluate(student, "--labels", data / "colors/labels.csv", "--json").stdout)
    tagged = json.loads(evaluate(student, "--tags", data / "colors/labels.csv", "--json").stdout)
    for number in range(0, 32, 3):
        for color in ("red", "green", "blue", "yellow"):
            table = table.replace(f"/{number}.png,{color},", f"/{number}.png,{color.upper()}_,")
    (tmp_path / "colors/labels.csv").write_text(table)
    assert "BLUE_" in table
    assert json.loads(evaluate(student, "--labels", tmp_path / "colors/labels.csv", "--json").stdout) == plain
    assert json.loads(evaluate(student, "--tags", tmp_path / "colors/labels.csv", "--json").stdout) == tagged


def test_custom_templates(evaluate: Evaluate, student: Path, data: Path, tmp_path: Path) -> None:
    from distill.evaluate.run import read_templates

    (tmp_path / "templates.txt").write_text("a {} disc\n\nis it {c}?\n")
    assert read_templates(tmp_path / "templates.txt") == ("a {} disc", "is it {}?")
    options = ["--labels", data / "colors/labels.csv", "--json"]
    own = json.loads(evaluate(student, *options, "--templates", tmp_path / "templates.txt").stdout)
    assert own["n"] == 32 and own != json.loads(evaluate(student, *options).stdout)


def test_tags_of_a_checkpoint_are_only_ranked(evaluate: Evaluate, student: Path, data: Path) -> None:
    result = json.loads(evaluate(student, "--tags", data / "tags.csv", "--json").stdout)
    assert (result["n"], result["labels"], result["n_failed"]) == (32, 6, 0)
    assert set(result) == {"n", "n_failed", "labels", "map", "intervals"}
    assert result["intervals"]["map"][0] < result["map"] < result["intervals"]["map"][1]
    text = evaluate(student, "--tags", data / "tags.csv").stdout
    assert f"{100 * result['map']:.1f} %" in text and "so they can be ranked, not decided" in text


def test_tags_of_a_bundle_are_decided_by_its_own_thresholds(evaluate: Evaluate, data: Path) -> None:
    """Compared with `decide`, which the app uses; the colors aren't labels of the bundle."""
    import mobileclip

    got = json.loads(evaluate("pocket", "--tags", data / "tags.csv", "--json").stdout)
    model = mobileclip.load("pocket")
    assert "cat" in model.labels and "dog" in model.labels and "red" not in model.labels
    vectors = model.encode_images([data / f"colors/images/{number}.png" for number in range(32)])
    given = [{label.name for label, _ in model.labels.decide(row)} for row in vectors @ model.label_vectors.T]
    shown = [{"cat"} if number // 4 % 2 else {"dog"} for number in range(32)]
    n_tags = sum(len(tags & {"cat", "dog"}) for tags in given)
    right = sum(len(tags & own) for tags, own in zip(given, shown, strict=True))
    assert (got["labels"], got["labels_with_threshold"]) == (6, 2)
    assert got["precision"] == (right / n_tags if n_tags else 0) and got["recall"] == right / 32
    assert 0 <= got["calibration_error"] <= 1 and set(got["intervals"]) >= {"map", "precision", "recall"}


def test_tags_by_evidence_as_the_export_measures_them(
    evaluate: Evaluate, student: Path, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.toml").write_text(EVIDENCE)
    result = json.loads(evaluate(student, "--tags", tmp_path / "labels.toml", "--data", data, "--json").stdout)
    # All test photos of `shapes`, and those of `colors` that the export does not calibrate on.
    assert 16 < result["n"] < 32 and result["labels"] in (1, 2)
    assert 0 < result["map"] <= 1


def test_labels_that_a_split_never_shows_are_left_out(student: Path, data: Path, tmp_path: Path) -> None:
    from distill.evaluate.encoders import open_encoder
    from distill.evaluate.run import evaluate_tags

    rows = [f"{data}/colors/images/{i}.png,{'a|b' if i < 4 else 'b' if i < 6 else ''},{i < 8}" for i in range(12)]
    (tmp_path / "tags.csv").write_text(
        "file,label,split\n" + "\n".join(rows) + f"\n{data}/colors/images/9.png,c,late\n"
    )
    result = evaluate_tags(open_encoder(str(student)), tmp_path / "tags.csv", split="True")
    assert (result["n"], result["labels"]) == (8, 2)
    assert np.isfinite(result["map"])


def test_wrong_usage_and_missing_files_give_one_line(
    evaluate: Evaluate, student: Path, data: Path, tmp_path: Path
) -> None:
    captions, labels, tags = data / "shapes/captions.jsonl", data / "colors/labels.csv", data / "tags.csv"
    (tmp_path / "templates.txt").write_text("no place\n")
    for usage in (
        (),
        ("--captions", captions, "--labels", labels),
        ("--tags", tags, "--data", data),
        ("--tags", tmp_path / "labels.toml"),
        ("--labels", labels, "--limits"),
        ("--captions", captions, "--templates", tmp_path / "templates.txt"),
    ):
        assert evaluate(student, *usage).exit_code == 2
    missing = evaluate(student, "--captions", tmp_path / "no.csv")
    shown = "".join(missing.stderr.replace("│", "").split())  # the message is wrapped in a box
    assert missing.exit_code == 2 and "doesnotexist" in shown and "Errno" not in shown
    (tmp_path / "labels.toml").write_text("not TOML")
    for arguments, message in (
        ((student, "--labels", labels, "--split", "nothing"), "no row with split"),
        ((student, "--labels", labels, "--column", "x"), "columns `file` and `x`"),
        ((student, "--labels", labels, "--templates", tmp_path / "templates.txt"), "no {} for the class name"),
        ((student, "--tags", tmp_path / "labels.toml", "--data", data), "not a labels file"),
        ((tmp_path / "no-model", "--labels", labels), "no-model"),
    ):
        failed = evaluate(*arguments)
        assert failed.exit_code == 4 and message in failed.stderr and failed.stdout == ""
        assert len(failed.stderr.strip().splitlines()) == 1


def test_a_bundle_is_evaluated_without_torch(data: Path) -> None:
    """The light install can evaluate bundles: importing torch and related packages is blocked."""
    program = f"""
import sys
for name in ("torch", "torchvision", "timm", "safetensors", "open_clip", "transformers", "matplotlib", "onnx"):
    sys.modules[name] = None
from pathlib import Path
from distill.evaluate.cli import evaluate
evaluate("pocket", labels=Path({str(data / "colors/labels.csv")!r}), split="test", as_json=True)
evaluate("pocket", tags=Path({str(data / "tags.csv")!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout[: done.stdout.index("\n}") + 2])["n"] == 16
    assert "mean average precision" in done.stdout and "Traceback" not in done.stderr


def test_a_table_with_all_labels_is_measured_as_such(evaluate: Evaluate, data: Path, tmp_path: Path) -> None:
    table, page = tmp_path / "all.csv", tmp_path / "wrong.html"
    table.write_text("file,label,unsure\n" + "".join(f"colors/images/{n}.png,,toy|sign\n" for n in range(4)))
    done = evaluate("pocket", "--tags", table, "--data", data, "--report", page, "--json")
    result = json.loads(done.stdout)
    assert result["n"] == 4 and set(result["views"]) > {"as they are", "gray"} and page.is_file()
    (tmp_path / "some.csv").write_text("file,label\n0.png,cat\n")
    for options in (
        ("--tags", table, "--data", data, "--split", "test"),
        ("--tags", table, "--data", data, "--column", "other"),
        ("--tags", tmp_path / "some.csv", "--report", page),
        ("--tags", tmp_path / "some.csv", "--data", data),
        ("--labels", data / "colors/labels.csv", "--data", data),
        ("--labels", data / "colors/labels.csv", "--queries", table),
    ):
        done = evaluate("pocket", *options)
        assert done.exit_code == 2 and "Traceback" not in done.output, options


def test_queries_are_compared_next_to_captions(evaluate: Evaluate, student: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("kind,query,variant\ncase,a red disc,A RED DISC\n")
    options = ["--captions", data / "shapes/captions.jsonl", "--queries", tmp_path / "pairs.csv"]
    result = json.loads(evaluate(student, *options, "--json").stdout)
    assert result["queries"]["case"] == {"n": 1, "accuracy": 1.0, "interval": [1.0, 1.0]}
    assert "first ten photos in common" in " ".join(evaluate(student, *options).stdout.split())
