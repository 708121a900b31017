"""`pocketclip train --dry-run`: a few real steps, an estimate of the whole run, and nothing written."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from distill.config import Recipe
from distill.data.corpus import Corpus
from distill.data.epoch import epoch_size
from distill.training.run import prepare
from distill.training.trial import _Stopwatch, try_recipe
from tests.distill.mixed import SOURCES, recipe


def listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


def dry_run(recipe_folder: Path, data: Path, out: Path, *settings: str) -> Result:
    from app.cli.main import app

    arguments = ["train", recipe_folder / "recipe.toml", "--data", data, "--out", out, "--workers", 0, "--dry-run"]
    arguments += [part for text in settings for part in ("--set", text)]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_prints_an_estimate_and_writes_nothing(
    recipe_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKETCLIP_HOME", str(tmp_path / "home"))
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    (copy / "shapes/images/5.png").unlink()
    before = listing(copy)
    stages = "stages=[{epochs=3,px=48},{epochs=2,texts_only=true},{epochs=4,px=64,frozen=['image.trunk']}]"
    best = 'validate={labels="colors/labels.csv",split="test",every=1}'
    done = dry_run(recipe_folder, copy, tmp_path / "run", stages, best, "optim.batch=12", "save_every=1")
    assert done.exit_code == 0, done.stderr
    numbers = r"\d+ steps of [\d.]+ s, [\d,]+"
    lines = done.stdout.splitlines()
    assert re.fullmatch(rf"stage 1, 48 px: {numbers} photos/s", lines[0])
    assert re.fullmatch(rf"stage 2, texts only: {numbers} texts/s", lines[1])
    assert re.fullmatch(rf"stage 3, 64 px: {numbers} photos/s", lines[2])
    assert re.fullmatch(r"preparation, once: up to \d+:\d\d:\d\d", lines[3])
    assert re.fullmatch(r"training: about \d+:\d\d:\d\d, without validation", lines[4])
    assert re.fullmatch(r"peak memory of a process: [\d.]+ GiB \(cpu\)", lines[5]) and len(lines) == 6
    assert "1 in shapes" in done.stderr and "missing-photos" not in done.stderr
    assert listing(copy) == before and not (tmp_path / "run").exists()


def test_what_is_wrong_ends_it_as_it_ends_a_run(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    done = dry_run(recipe_folder, data, tmp_path / "run", "init=nowhere.pth")
    assert done.exit_code == 4 and "nowhere.pth" in done.stderr and done.stdout == ""


STAGES = [{"epochs": 2, "px": 48}, {"epochs": 1, "px": 32}]


@pytest.mark.parametrize("kind", ["listed", "remote"])
def test_the_steps_are_those_of_the_run(kind: str, mixed_data: Path, mixed_model: Path, tmp_path: Path) -> None:
    """Also if only one of two tars was copied for the trial."""
    data = tmp_path / "data"
    shutil.copytree(mixed_data, data)
    sources = {name: SOURCES[name] for name in ("captioned", "labeled")}
    if kind == "remote":
        sources = {"tars": {"kind": "webdataset", "file": f"file://{data}/tars/{{00000..00001}}.tar"}}
    loss = {"contrastive": 1.0, "affinity": 0.0, "feature": 0.0, "bank": 0}
    settings = {"open_clip": [], "loss": loss, "stages": STAGES, "optim": {"batch": 4, "extra_texts": 0}}
    plan = recipe(tmp_path, sources, **settings)
    before = listing(data)
    trial = try_recipe(plan, mixed_model, data, lambda *_: None, workers=0)
    assert listing(data) == before
    trainer = prepare(plan, mixed_model, data, tmp_path / "run", lambda *_: None, workers=0).trainer
    assert [one.steps for one in trial.stages] == [sum(trainer.epoch_steps[:2]), trainer.epoch_steps[2]]
    assert trial.seconds == pytest.approx(sum(one.steps * one.seconds for one in trial.stages))
    assert trial.preparation == 0 and trial.memory > 2**20


def test_a_small_corpus_has_photos_of_every_source_and_their_texts(recipe_folder: Path, data: Path) -> None:
    whole = Corpus.read(Recipe.load(recipe_folder / "recipe.toml"), data)
    few = whole.few(30, 2)
    assert epoch_size(few.sources) == pytest.approx(30, abs=2)
    assert set(few.source_of) == {0, 1} and few.shares == whole.shares
    position = {sample.key: number for number, sample in enumerate(whole.samples)}
    for number, sample in enumerate(few.samples):
        row = position[sample.key]
        assert [few.texts[text] for text in few.text_ids[number]] == [whole.texts[text] for text in whole.text_ids[row]]
        assert few.groups[number] == whole.groups[row]
    paired = {text for ids in few.text_ids for text in ids}
    assert len(few.texts) == len(paired) + 2 and len(set(few.texts)) == len(few.texts)
    lost = np.arange(len(whole.samples)) % 3 == 0
    broken = whole.without(lost).few(30, 2)
    assert broken.unreadable and [bool(lost[position[sample.key]]) for sample in broken.samples] == [
        number in broken.unreadable for number in range(len(broken.samples))
    ]
    everything = whole.few(10**6, 10**6)
    assert everything.identity == whole.identity


def test_a_preparation_is_scaled_to_the_whole_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first report of a pass includes loading a model, so it counts only if it is the only one."""
    now = [0.0]
    monkeypatch.setattr("distill.training.trial.time.perf_counter", lambda: now[0])
    watch = _Stopwatch(lambda *_: None)
    for taken, what, done, total in (
        (7, "data", 100, 100),
        (60, "teacher photos", 50, 100),
        (10, "teacher photos", 100, 100),
        (30, "teacher photos", 100, 100),
        (4, "teacher texts", 40, 40),
    ):
        now[0] += taken
        watch(what, done, total)
    assert watch.estimate(photos=10, texts=3) == pytest.approx((20 + 30) * 10 + 4 * 3)
