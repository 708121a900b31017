"""Accelerators that fail, and the CPU that takes over for good."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobileclip
from mobileclip import EngineError
from mobileclip.runtimes import Tower, load_tower, onnx
from mobileclip.runtimes.fallback import Fallback

SANE = np.eye(3, dtype=np.float32)


class Fake:
    """A tower that gives what it is told, or raises it."""

    dtype = np.dtype(np.float32)
    shape = ("n", 3)

    def __init__(self, gives: Any) -> None:
        self.gives, self.runs = gives, 0

    def __call__(self, inputs: Any) -> Any:
        self.runs += 1
        if isinstance(self.gives, Exception):
            raise self.gives
        return self.gives

    def with_features(self, inputs: Any, output: str) -> Any:
        return self(inputs), np.zeros((3, 1, 1, 1), np.float32)


class Machine:
    """Makes fake towers, and remembers which were asked for."""

    def __init__(self, **towers: Any) -> None:
        self.towers, self.made = towers, []  # type: ignore[var-annotated]

    def __call__(self, name: str) -> Any:
        self.made.append(name)
        if isinstance(self.towers[name], Exception):
            raise self.towers[name]
        return self.towers[name]


def test_one_that_works_is_kept() -> None:
    machine = Machine(fast=Fake(SANE), cpu=Fake(SANE))
    tower = Fallback(["fast"], machine)
    assert np.array_equal(tower(SANE), SANE) and tower.accelerator == "fast" and machine.made == ["fast"]
    assert tower.with_features(SANE, "map")[0] is SANE and not tower.failures


def test_one_that_does_not_load_is_passed_over() -> None:
    machine = Machine(first=EngineError("no such device"), second=Fake(SANE), cpu=Fake(SANE))
    tower = Fallback(["first", "second"], machine)
    assert tower.accelerator == "second" and tower.failures == {"first": "no such device"}


def test_wrong_answers_are_passed_over() -> None:
    def check(tower: Tower) -> None:
        if not np.array_equal(tower(SANE), SANE):
            raise EngineError("wrong known answers")

    machine = Machine(fast=Fake(SANE[::-1]), cpu=Fake(SANE))
    tower = Fallback(["fast"], machine, check)
    assert tower.accelerator == "cpu" and tower.failures == {"fast": "wrong known answers"}
    with pytest.raises(EngineError, match="wrong known answers"):
        Fallback([], Machine(cpu=Fake(SANE * 2)), check)


@pytest.mark.parametrize("failure", [EngineError("out of memory"), np.full((3, 3), np.nan, np.float32)])
def test_one_that_fails_later_is_never_tried_again(failure: Any) -> None:
    fast = Fake(SANE)
    machine = Machine(fast=fast, cpu=Fake(SANE))
    tower = Fallback(["fast"], machine)
    tower(SANE)
    fast.gives = failure
    assert np.array_equal(tower(SANE), SANE) and tower.accelerator == "cpu" and list(tower.failures) == ["fast"]
    fast.gives, runs = SANE, fast.runs
    assert np.array_equal(tower(SANE), SANE) and fast.runs == runs and machine.made.count("fast") == 1


def test_inputs_that_nobody_can_run_do_not_cost_the_accelerator() -> None:
    wrong = EngineError("wrong shape")
    fast, cpu = Fake(SANE), Fake(wrong)
    tower = Fallback(["fast"], Machine(fast=fast, cpu=cpu))
    fast.gives = wrong
    with pytest.raises(EngineError, match="wrong shape"):
        tower(SANE)
    assert tower.accelerator == "fast" and not tower.failures


def test_onnx_without_the_provider_runs_on_the_cpu(tiny: Any) -> None:
    data, there = tiny.files["image.onnx"], onnx.accelerators()
    absent = next(name for name in ("tensorrt", "cuda", "coreml", "directml") if name not in there)
    with pytest.raises(EngineError, match=f"no {absent}"):
        onnx.Tower(data, accelerator=absent)
    tower = load_tower("onnx", data, threads=1, accelerator=absent)
    assert isinstance(tower, Fallback) and tower.accelerator == "cpu" and absent in tower.failures
    pixels = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(tower(pixels), tiny.image_vectors(pixels), atol=1e-5)
    with pytest.raises(EngineError, match="unknown accelerator 'abacus'"):
        onnx.Tower(data, accelerator="abacus")


def test_a_model_falls_back_when_an_accelerator_gives_wrong_known_answers(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(onnx.Tower):
        """Like a driver that mixes up the channels."""

        def __init__(self, data: bytes, *, threads: int | None = None, accelerator: str = "cpu") -> None:
            super().__init__(data, threads=threads)
            self.accelerator = accelerator

        def __call__(self, inputs: Any) -> Any:
            return super().__call__(inputs[:, ::-1] if self.accelerator == "npu" and inputs.ndim == 4 else inputs)

    monkeypatch.setattr(onnx, "Tower", Broken)
    monkeypatch.setattr(onnx, "accelerators", lambda: ("npu",))
    model = mobileclip.load(tiny.write(tmp_path / "tiny"), threads=1, accelerator="auto")
    pixels = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(model.encode_pixels(pixels), tiny.image_vectors(pixels), atol=1e-5)
    model.encode_texts(["dog"])
    assert model.accelerators == {"image": "cpu", "text": "npu"}
