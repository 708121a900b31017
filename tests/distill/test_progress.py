"""What a person sees of long work on a terminal, and what a log gets."""

import io

import pytest

from distill.progress import Bars, TrainingStep


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def training_step(step: int = 3, steps: int = 9, epoch: int = 0, wait: float = 0.0, unread: int = 0) -> TrainingStep:
    return TrainingStep(step, steps, epoch, 123.4, {"loss": 1.5}, 2.5e-4, wait, unread)


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, step: TrainingStep, quiet: bool = False) -> str:
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    with Bars(quiet=quiet) as bars:
        bars.report("teacher photos", 32, 64)
        bars.step(step)
    return stream.getvalue()


def test_a_step_says_what_slows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, Terminal(), training_step(wait=0.02))
    assert "teacher photos" in text and "32/64" in text and "3/9" in text
    assert "epoch 1  123 photos/s  loss 1.500" in text and "waiting" not in text and "unreadable" not in text
    slow = training_step(wait=0.8, unread=1200)
    assert "loss 1.500  80% waiting for data  1,200 unreadable" in shown(monkeypatch, Terminal(), slow)


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_quiet_shows_nothing(monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO]) -> None:
    assert shown(monkeypatch, stream(), training_step(), quiet=True) == ""


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("distill.progress.time.monotonic", lambda: self.now)


def test_a_log_gets_a_line_each_half_minute_and_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """400 steps of 2 seconds in two epochs."""
    stream, clock = io.StringIO(), Clock(monkeypatch)
    monkeypatch.setattr("sys.stderr", stream)
    with Bars(quiet=False) as bars:
        for number in range(1, 401):
            clock.now += 2
            bars.step(training_step(step=number, steps=400, epoch=(number - 1) // 200))
    lines = stream.getvalue().splitlines()
    numbers = [int(line.split()[1].partition("/")[0]) for line in lines]
    assert numbers == [1, *range(16, 200, 15), 201, *range(216, 400, 15), 400]
    assert lines[0] == "step 1/400  epoch 1  loss 1.5000  lr 2.50e-04  123.4 samples/s"
    assert lines[1] == "step 16/400  epoch 1  loss 1.5000  lr 2.50e-04  123.4 samples/s  0:12:48 left"
    assert lines[-1] == "step 400/400  epoch 2  loss 1.5000  lr 2.50e-04  123.4 samples/s"


def test_a_log_says_what_slows_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, io.StringIO(), training_step(wait=0.8, unread=1200))
    assert text.endswith("samples/s  80% waiting for data  1,200 unreadable\n")


def test_a_log_gets_lines_of_long_steps_only(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, clock = io.StringIO(), Clock(monkeypatch)
    monkeypatch.setattr("sys.stderr", stream)
    with Bars(quiet=False) as bars:
        for done in (0, 10, 20):
            clock.now += 5
            bars.report("short", done, 20)
        for done in (100, 1000, 2000):
            clock.now += 20
            bars.report("teacher photos", done, 2000, "note")
    assert stream.getvalue() == "teacher photos 100/2,000  note\nteacher photos 2,000/2,000  note\n"
