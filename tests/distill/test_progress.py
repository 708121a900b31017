"""What a person sees of long work on a terminal, and that a pipe sees none of it."""

import io

import pytest

from distill.progress import Bars, TrainingStep


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, step: TrainingStep, quiet: bool = False) -> str:
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    with Bars(quiet=quiet) as bars:
        bars.report("teacher photos", 32, 64)
        bars.step(step)
    return stream.getvalue()


def test_a_step_says_what_slows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    good = TrainingStep(step=3, steps=9, epoch=0, photos_per_second=123.4, losses={"loss": 1.5}, wait=0.02)
    text = shown(monkeypatch, Terminal(), good)
    assert "teacher photos" in text and "32/64" in text and "3/9" in text
    assert "epoch 1  123 photos/s  loss 1.500" in text and "waiting" not in text and "unreadable" not in text
    slow = TrainingStep(step=3, steps=9, epoch=0, photos_per_second=5, losses={"loss": 1.5}, wait=0.8, unread=1200)
    assert "loss 1.500  80% waiting for data  1,200 unreadable" in shown(monkeypatch, Terminal(), slow)


def test_pipes_and_the_quiet_see_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    step = TrainingStep(step=3, steps=9, epoch=0, photos_per_second=5, losses={"loss": 1.5})
    assert shown(monkeypatch, io.StringIO(), step) == "" == shown(monkeypatch, Terminal(), step, quiet=True)
