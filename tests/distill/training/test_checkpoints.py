"""Checkpoints: a killed run ends as one never killed, to the last bit; full disks, damage, and losses that explode."""

import dataclasses
import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.batch import Batch
from distill.config import Recipe, Stage
from distill.evaluate.encoders import open_encoder
from distill.files import write_whole
from distill.training.checkpoints import RunCheckpoints
from distill.training.run import build_student, prepare
from distill.training.trainer import Trainer, TrainingError
from mobileclip.checkpoint_files import find_in_run
from mobileclip.checkpoints import CheckpointError, load_checkpoint, read_torch
from mobileclip.errors import PocketclipError
from tests.distill.conftest import run
from tests.distill.training.toys import ToyFeed, toy_model, toy_recipe

SETTINGS = {
    "save_every": 1,
    "optim.micro_batch": 10,
    "stages": [{"epochs": 1, "px": 48}, {"epochs": 1, "texts_only": True}, {"epochs": 1, "px": 64}],
}


def train_in_one_thread(recipe_folder: Path, data: Path, out: Path) -> None:
    torch.set_num_threads(1)
    run(recipe_folder, data, out, **SETTINGS)


def newest(out: Path) -> int:
    return max((int(path.stem[5:]) for path in (out / "checkpoints").glob("*.pt")), default=0)


def trained(folder: Path, feed: ToyFeed | None = None, **settings: object) -> Trainer:
    """A toy run, stopped by nothing but itself."""
    trainer = Trainer(toy_recipe(folder, **settings), toy_model(dropout=0.2), feed or ToyFeed(), folder)
    trainer.resume()
    for _ in trainer.run():
        pass
    return trainer


def test_a_run_killed_again_and_again_ends_bit_identical(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    """Real SIGKILLs at random moments: in a step, in the middle of writing, while teachers are asked."""
    server = multiprocessing.get_context("forkserver")
    heavy = ["sentence_transformers", "timm", "torch.utils.tensorboard", "matplotlib.pyplot"]
    server.set_forkserver_preload(["distill.training.run", *heavy, "tests.distill.conftest"])  # imported once for all

    def started(out: Path) -> ForkServerProcess:
        process = server.Process(target=train_in_one_thread, args=(recipe_folder, data, out))
        process.start()
        return process

    whole, killed = started(tmp_path / "whole"), tmp_path / "killed"
    whole.join()
    assert whole.exitcode == 0
    for _ in range(3):
        process, before, limit = started(killed), newest(killed), time.monotonic() + 120
        while newest(killed) < before + 2 and process.is_alive() and time.monotonic() < limit:
            time.sleep(0.01)
        time.sleep(random.random() * 0.2)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    last = started(killed)
    last.join()
    assert last.exitcode == 0
    for name in ("student/model.safetensors", "student/merges.txt.gz"):
        assert (tmp_path / "whole" / name).read_bytes() == (killed / name).read_bytes()
    one, other = (RunCheckpoints(tmp_path / name, 1).load() for name in ("whole", "killed"))
    assert one and other and one[0].name == other[0].name
    for part in ("task", "average", "optimizer"):
        assert equal(one[1][part], other[1][part]), part
    assert one[1]["course"] == other[1]["course"]
    lines = [[json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()] for name in ("whole", "killed")]
    losses = [[(line["step"], line["loss"], line["lr"]) for line in run] for run in lines]
    assert losses[0] == losses[1] and len(losses[0]) == newest(killed)


def equal(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return one == other


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_asked_to_stop_keeps_its_last_step(
    recipe_folder: Path, data: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    arguments = [sys.executable, "-m", "app", "train", str(recipe_folder / "recipe.toml"), "--data", str(data)]
    arguments += ["--out", str(tmp_path / "run"), "--threads", "1", "--set", "save_every=1000"]
    arguments += ["--set", "stages=[{epochs=40,px=48}]"]
    environment = {**os.environ, "POCKETCLIP_HOME": str(tmp_path / "home")}
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 120
    while not (tmp_path / "run/metrics.jsonl").exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(number)
    said = process.communicate()[1]
    assert process.returncode == code, said
    assert "run the same command to resume" in said and "Traceback" not in said
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").open()]
    assert newest(tmp_path / "run") == lines[-1]["step"]


def test_the_last_checkpoints_are_kept_and_partial_files_removed(tmp_path: Path) -> None:
    kept = RunCheckpoints(tmp_path, 2)
    assert kept.load() is None and kept.before(9) is None
    for step in (3, 6, 100):
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        (tmp_path / "checkpoints/.step-00000001.pt.999-0a1b2c3d.part").write_bytes(b"partial")
        kept.save(step, {"step": step})
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000006.pt", "step-00000100.pt"]
    found = kept.load()
    assert found and found[1] == {"step": 100}
    assert kept.before(100) == kept.path(6) and kept.before(6) is None


@pytest.mark.parametrize("kind", ["bytes", "torch"])
def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "folder/file.pt"
    write_whole(path, lambda stream: stream.write(b"before"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(PocketclipError, match=r"file\.pt: cannot be written \(File too large\)"):
            if kind == "bytes":
                write_whole(path, lambda stream: stream.write(bytes(200_000)))
            else:
                write_whole(path, lambda stream: torch.save(torch.zeros(200_000), stream))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"before" and list(path.parent.iterdir()) == [path]


def test_a_damaged_checkpoint_makes_way_for_the_one_before(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    stopped = trained(tmp_path / "torn")
    assert stopped.step == 4 and len(stopped.checkpoints.all()) == 2
    last = stopped.checkpoints.path(4)
    last.write_bytes(last.read_bytes()[:-1000])
    again = Trainer(toy_recipe(tmp_path / "torn"), toy_model(dropout=0.2), ToyFeed(), tmp_path / "torn")
    text = again.resume()
    assert text == f"resumed at step 2 of 4 from {again.checkpoints.path(2)}; step-00000004.pt is damaged"
    for _ in again.run():
        pass
    assert equal(dict(whole.student().state_dict()), dict(again.student().state_dict()))
    for path in again.checkpoints.all():
        path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"step-00000004\.pt: damaged"):
        trained(tmp_path / "torn")


def test_a_damaged_later_checkpoint_is_not_kept_instead_of_a_good_one(tmp_path: Path) -> None:
    kept = RunCheckpoints(tmp_path, 1)
    kept.save(8, {"step": 8})
    kept.path(8).write_bytes(b"damaged")
    kept.save(6, {"step": 6})
    assert kept.all() == [kept.path(6)]


def stopped_after(folder: Path, steps: int, **settings: object) -> Trainer:
    """A toy run that ends after a step, at which it saves."""
    trainer = Trainer(toy_recipe(folder, **settings), toy_model(dropout=0.2), ToyFeed(), folder)
    trainer.resume()
    for step in trainer.run():
        trainer.stopping = step.step == steps - 1  # a request holds for the next step
    return trainer


def test_rates_may_change_midway_and_nothing_else(tmp_path: Path) -> None:
    assert stopped_after(tmp_path, 2).step == 2
    with pytest.raises(TrainingError, match=r"other settings \(optim.batch was 8, now 16; seed was 0, now 1\)"):
        trained(tmp_path, seed=1, **{"optim.batch": 16})
    other = ToyFeed()
    other.identity = "other noise"
    with pytest.raises(TrainingError, match="other data"):
        trained(tmp_path, other)
    assert trained(tmp_path, **{"optim.lr": 1e-5, "optim.clip": 0.5, "keep_last": 5}).step == 4


def test_a_finished_run_says_what_differs_and_what_to_do(tmp_path: Path) -> None:
    assert trained(tmp_path).step == 4
    assert trained(tmp_path).resume() == f"the run in {tmp_path} is finished: 4 steps"
    with pytest.raises(TrainingError, match=r"finished, .*optim.lr was 0.001, now 1e-05.*another --out .*start = '"):
        trained(tmp_path, **{"optim.lr": 1e-5})


def epochs(*numbers: int, **settings: object) -> dict[str, object]:
    return {"stages": [{"epochs": n, "px": 32} for n in numbers], "optim.warmup": 1, **settings}


def test_a_finished_run_with_a_constant_rate_can_be_lengthened(tmp_path: Path) -> None:
    """It ends as a run that was as long from the beginning, to the last bit."""
    constant = {"optim.schedule": "constant"}
    whole = trained(tmp_path / "whole", **epochs(1, 2, **constant))
    trained(tmp_path / "parts", **epochs(1, 1, **constant))
    parts = trained(tmp_path / "parts", **epochs(1, 2, **constant))
    assert whole.step == parts.step == 12
    assert equal(dict(whole.student().state_dict()), dict(parts.student().state_dict()))
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts/metrics.jsonl").open()]
    assert steps == list(range(1, 13))
    with pytest.raises(TrainingError, match=r"stages\[0\].px was 32, now 64"):
        trained(tmp_path / "parts", **{**constant, "stages": [{"epochs": 4, "px": 64}]})


def test_a_run_whose_rate_has_fallen_cannot_be_lengthened(tmp_path: Path) -> None:
    trained(tmp_path, **epochs(1))
    with pytest.raises(TrainingError, match=r"epochs was 1, now 2, but the cosine schedule .*schedule = 'constant'"):
        trained(tmp_path, **epochs(2))


def test_a_phase_can_be_added_to_a_run(tmp_path: Path) -> None:
    """Texts after photos have a schedule of their own."""
    stages = [{"epochs": 1, "px": 32}, {"epochs": 1, "texts_only": True}]
    trained(tmp_path, **epochs(1))
    assert trained(tmp_path, stages=stages, **{"optim.warmup": 1}).step == 8


def test_any_checkpoint_of_a_run_is_a_model(student: Path, recipe_folder: Path) -> None:
    """Its folder, the file that it resumes from, and its student can be evaluated and started from."""
    folder = student.parent
    newest = max((folder / "checkpoints").iterdir())
    state, finished = read_torch(newest), load_checkpoint(student)
    texts = ["a red disc", "a blue square"]
    expected = open_encoder(student).encode_texts(texts)
    for path in (folder, newest):
        loaded = load_checkpoint(path)
        assert (loaded.about, loaded.merges) == (finished.about, finished.merges)
        assert np.allclose(open_encoder(path).encode_texts(texts), expected, atol=2e-3)
        started = build_student(Recipe.load(recipe_folder / "recipe.toml", {"start": str(path)}), recipe_folder)
        assert equal(dict(started.state_dict()), dict(loaded.model.state_dict()))
    averaged = load_checkpoint(newest).model.state_dict()
    assert all(torch.equal(averaged[name], value) for name, value in state["average"]["values"].items())
    earlier = load_checkpoint(min((folder / "checkpoints").iterdir())).model
    assert not torch.equal(earlier.text.projection.weight, averaged["text.projection.weight"])


def test_a_run_without_average_is_read_from_its_weights(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    """Stopped half-way, it has no student yet; once it is longer than its student, the checkpoint counts."""
    run(recipe_folder, data, tmp_path, steps=3, **{"optim.ema": 0.0})
    loaded = load_checkpoint(tmp_path)
    weights = read_torch(tmp_path / "checkpoints/step-00000003.pt")["task"]
    assert all(torch.equal(weights[f"model.{name}"], value) for name, value in loaded.model.state_dict().items())
    (tmp_path / "student").mkdir()
    stale = tmp_path / "student/model.safetensors"
    stale.write_bytes(b"older")
    os.utime(stale, (1, 1))
    assert find_in_run(tmp_path) == tmp_path / "checkpoints/step-00000003.pt"
    os.utime(stale)
    assert find_in_run(tmp_path) == stale and find_in_run(tmp_path / "student") is None


class Bursting(ToyFeed):
    """One batch in which a teacher's vectors are far too long."""

    def batches(self, epoch: int, stage: Stage, first: int) -> Iterator[Batch]:
        for step, batch in enumerate(super().batches(epoch, stage, first), first):
            if step == 25:
                teachers = tuple(one._replace(image=30 * one.image) for one in batch.teachers)
                batch = Batch(batch.pixels, batch.tokens, batch.groups, teachers, batch.reference, tried=batch.tried)
            yield batch


def test_an_exploding_loss_stops_and_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    losses = {"contrastive": 1.0, "feature": 1.0, "affinity": 0.0}
    with pytest.raises(TrainingError, match=r"exploded to .* at step 25; .*step-00000024.pt is the last good"):
        trained(tmp_path, Bursting(40), loss=losses, save_every=6)
    trained(tmp_path / "off", Bursting(40), loss=losses, **{"optim.explode": 0.0})
    assert trained(tmp_path, ToyFeed(40), loss=losses, save_every=6).step == 40, "the same command goes on"


def test_a_checkpoint_of_broken_weights_is_not_called_good(tmp_path: Path) -> None:
    """The step that breaks the weights is saved like any other; the next one finds out."""
    wild = {"optim.lr": 1e30, "optim.lr_trunk": 1e30, "optim.clip": 1e30, "optim.warmup": 0, "save_every": 1}
    with pytest.raises(TrainingError, match=r"the (loss|gradient) became .* there is no good checkpoint yet"):
        trained(tmp_path, **wild)
    assert not RunCheckpoints(tmp_path, 1).all()


class Broken(ToyFeed):
    """A teacher whose embeddings are NaN."""

    def batches(self, epoch: int, stage: Stage, first: int) -> Iterator[Batch]:
        for batch in super().batches(epoch, stage, first):
            teachers = tuple(teacher._replace(image=teacher.image * float("nan")) for teacher in batch.teachers)
            yield dataclasses.replace(batch, teachers=teachers)


def test_a_loss_that_is_nan_from_the_start_names_the_loss_and_not_the_rate(tmp_path: Path) -> None:
    losses = {"contrastive": 1.0, "feature": 1.0, "affinity": 0.0}
    with pytest.raises(TrainingError, match=r"nan at step 0 \(loss.feature\), before .* optim.lr isn't the cause"):
        trained(tmp_path, Broken(), loss=losses)


def test_the_best_student_is_kept(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    plan = {"captions": "shapes/captions.jsonl", "splits": "shapes/splits.csv", "split": "test", "every": 4}
    recipe = Recipe.load(recipe_folder / "recipe.toml", {"validate": plan})
    trainer = prepare(recipe, recipe_folder, data, tmp_path, lambda *_: None, workers=0).trainer
    students = {step.step: trainer.student() for step in trainer.run() if step.step in (4, 8, 10)}
    measured = {
        line["step"]: line["validation"]
        for line in map(json.loads, (tmp_path / "metrics.jsonl").open())
        if "validation" in line
    }
    assert list(measured) == [4, 8, 10] and all(0 < score <= 1 for score in measured.values())
    said = json.loads((tmp_path / "best/evaluation.json").read_text())
    assert measured[said["step"]] == max(measured.values())
    mean = (said["text_to_photo"]["R@10"] + said["photo_to_text"]["R@10"]) / 2
    assert mean == pytest.approx(measured[said["step"]], abs=1e-4)
    best = load_checkpoint(tmp_path / "best").model.state_dict()
    wanted = students[said["step"]].state_dict()
    for name, value in wanted.items():
        exact = not value.ndim or "running" in name
        assert torch.equal(best[name], value if exact else value.half().float()), name


def resumed(out: Path, resume: str, **settings: object) -> Trainer:
    """A toy run started as `prepare` does."""
    start = RunCheckpoints(out, 2).choose(resume)
    trainer = Trainer(toy_recipe(out, **settings), toy_model(dropout=0.2), ToyFeed(), out)
    trainer.resume(start)
    return trainer


def test_a_run_goes_back_to_an_earlier_checkpoint(tmp_path: Path) -> None:
    whole = trained(tmp_path / "a")
    earlier = whole.checkpoints.path(2)
    back = resumed(tmp_path / "a", str(earlier))
    assert back.step == 2
    for _ in back.run():
        pass
    assert equal(dict(whole.student().state_dict()), dict(back.student().state_dict()))
    steps = [json.loads(line)["step"] for line in (tmp_path / "a/metrics.jsonl").open()]
    assert steps == [1, 2, 3, 4]


@pytest.mark.parametrize("what", ["checkpoint", "folder"])
def test_a_run_starts_from_a_checkpoint_of_another_until_it_has_its_own(tmp_path: Path, what: str) -> None:
    """So the same command resumes it after a kill."""
    whole = trained(tmp_path / "a")
    before = stopped_after(tmp_path / "b", 2)
    start = str(before.checkpoints.path(2) if what == "checkpoint" else tmp_path / "b")
    branch = resumed(tmp_path / "c", start, save_every=1)
    branch.state.best = 0.5
    steps = branch.run()
    assert next(steps).step == 3
    steps.close()
    again = resumed(tmp_path / "c", start, save_every=1)
    assert again.step == 3 and again.state.best == 0.5
    for _ in again.run():
        pass
    assert equal(dict(whole.student().state_dict()), dict(again.student().state_dict()))
    assert [path.name for path in before.checkpoints.all()] == ["step-00000002.pt"], "the other run stays as it was"


def test_the_best_score_of_another_run_does_not_count(tmp_path: Path) -> None:
    before = stopped_after(tmp_path / "a", 2)
    before.state.best = 0.9
    before.save()
    assert resumed(tmp_path / "a", "auto").state.best == 0.9
    assert resumed(tmp_path / "a", str(before.checkpoints.path(2))).state.best == 0.9
    assert resumed(tmp_path / "b", str(before.checkpoints.path(2))).state.best == -1


def test_a_run_that_may_not_resume_refuses_a_folder_with_checkpoints(tmp_path: Path) -> None:
    assert resumed(tmp_path, "never").step == 0
    stopped_after(tmp_path, 2)
    with pytest.raises(CheckpointError, match=r"has checkpoints of a run already; .*another --out, or --resume auto"):
        resumed(tmp_path, "never")
    assert resumed(tmp_path, "auto").step == resumed(tmp_path, str(tmp_path)).step == 2


def test_what_a_run_cannot_resume_from_is_one_line(tmp_path: Path, student: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: no such checkpoint"):
        resumed(tmp_path, str(tmp_path / "nowhere"))
    (tmp_path / "empty/checkpoints").mkdir(parents=True)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pt")
    for weights in (student, student / "model.safetensors", tmp_path / "weights.pt", tmp_path / "empty"):
        with pytest.raises(CheckpointError, match=r"not a checkpoint of a run.* set start = "):
            resumed(tmp_path / "run", str(weights))
    with pytest.raises(TrainingError, match=r"other settings .*leave --resume out and set start = "):
        resumed(tmp_path / "run", str(stopped_after(tmp_path / "a", 2).checkpoints.path(2)), seed=1)
