"""The two logs of a run: they agree, survive kills, and go on where a resumed run does."""

import json
import os
import sys
from pathlib import Path

import pytest

from distill.logs import EVENTS, METRICS, LogError, RunLog, is_loss, read_metrics, tag
from mobileclip.extras import MissingExtraError


def figures(step: int) -> dict[str, float]:
    return {"step": step, "epoch": step // 4, "px": 64, "lr": 0.1 / step, "loss": 3 / step, "feature": 1 / step}


def written(folder: Path, first: int, last: int) -> RunLog:
    log = RunLog(folder, first - 1)
    for step in range(first, last + 1):
        log.write(figures(step))
    return log


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder / EVENTS), size_guidance={"scalars": 0})
    reader.Reload()
    return {name: [(e.step, e.value) for e in reader.Scalars(name)] for name in reader.Tags()["scalars"]}


def assert_events_are_the_lines(folder: Path) -> None:
    lines, shown = read_metrics(folder / METRICS), events(folder)
    names = {name for line in lines for name in line} - {"step", "seconds", "time"}
    assert set(shown) == {tag(name) for name in names}
    for name in names:
        told = [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines if line[name] is not None]
        assert shown[tag(name)] == told


def test_lines_hold_what_was_written_and_how_long_it_took(tmp_path: Path) -> None:
    written(tmp_path / "runs/new", 1, 5).close()
    lines = [json.loads(line) for line in (tmp_path / "runs/new" / METRICS).read_text().splitlines()]
    assert [{name: line[name] for name in figures(1)} for line in lines] == [figures(step) for step in range(1, 6)]
    assert all(line["seconds"] >= 0 for line in lines)
    assert lines[0]["time"] <= lines[-1]["time"] <= lines[0]["time"] + 60
    assert_events_are_the_lines(tmp_path / "runs/new")


def test_a_resumed_run_drops_what_it_does_again_from_both_logs(tmp_path: Path) -> None:
    written(tmp_path, 1, 9)  # killed: never closed
    log = RunLog(tmp_path, 6)
    for step in (7, 8):
        log.write({**figures(step), "feature": 100.0 + step})
    log.close()
    lines = read_metrics(tmp_path / METRICS)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [line["feature"] for line in lines[5:]] == [1 / 6, 107, 108]
    assert_events_are_the_lines(tmp_path)


def test_files_torn_by_a_kill_are_read_and_gone_on_with(tmp_path: Path) -> None:
    written(tmp_path, 1, 6)
    for path in (tmp_path / METRICS, next((tmp_path / EVENTS).iterdir())):
        path.write_bytes(path.read_bytes()[:-7])
    assert [line["step"] for line in read_metrics(tmp_path / METRICS)] == [1, 2, 3, 4, 5]
    written(tmp_path, 4, 7).close()
    assert [line["step"] for line in read_metrics(tmp_path / METRICS)] == [1, 2, 3, 4, 5, 6, 7]
    assert_events_are_the_lines(tmp_path)


def test_every_line_is_there_before_the_next_step(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    for step in (1, 2):
        log.write(figures(step))
        assert len(read_metrics(tmp_path / METRICS)) == len(events(tmp_path)["loss/loss"]) == step


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.write({"step": 1, "gradient_norm": float("inf"), "loss": 1.0})
    log.close()
    text = (tmp_path / METRICS).read_text()
    assert json.loads(text, parse_constant=pytest.fail)["gradient_norm"] is None
    assert set(events(tmp_path)) == {"loss/loss"}


def test_a_new_run_where_another_was_starts_anew(tmp_path: Path) -> None:
    written(tmp_path, 1, 3).close()
    written(tmp_path, 1, 1).close()
    assert [line["step"] for line in read_metrics(tmp_path / METRICS)] == [1]
    assert_events_are_the_lines(tmp_path)


def test_trouble_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match="cannot be written"):
        RunLog(tmp_path / "file")
    with pytest.raises(LogError, match="cannot be read"):
        read_metrics(tmp_path / "none.jsonl")
    (tmp_path / METRICS).write_text('{"step": 1}\n[]\n{"step": 3}\n')
    with pytest.raises(LogError, match="line 2"):
        RunLog(tmp_path, 3)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match="pip install"):
        RunLog(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RunLog(tmp_path)
    monkeypatch.setattr(log, "_file", os.fdopen(os.open("/dev/full", os.O_WRONLY), "w"))
    with pytest.raises(LogError, match=r"No space left.*resume"):
        log.write(figures(1))
    with pytest.raises(LogError, match="No space left"):  # what is still in the buffer
        log.close()


def test_names_tell_losses_from_the_rest() -> None:
    losses = {"loss", "contrastive", "feature", "masked_feature", "something_new"}
    rest = {"lr", "lr_trunk", "wait", "unread", "photos_per_second", "gradient_norm", "logit_scale", "step"}
    assert all(map(is_loss, losses)) and not any(map(is_loss, rest))
