"""When an accelerator fails, the CPU takes over for good."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobileclip
from mobileclip import EngineError
from mobileclip.runtimes import Tower, load_tower, onnx
from mobileclip.runtimes.fallback import Fallback

RIGHT = np.eye(3, dtype=np.float32)


class Fake:
    """A tower that returns `result`, or raises it."""

    dtype = np.dtype(np.float32)
    shape = ("n", 3)

    def __init__(self, result: Any) -> None:
        self.result, self.runs = result, 0

    def __call__(self, inputs: Any) -> Any:
        self.runs += 1
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def with_features(self, inputs: Any, output: str) -> Any:
        return self(inputs), np.zeros((3, 1, 1, 1), np.float32)


class Machine:
    """Loads fake towers, and remembers which were loaded."""

    def __init__(self, **towers: Any) -> None:
        self.towers, self.loaded = towers, []  # type: ignore[var-annotated]

    def __call__(self, name: str) -> Any:
        self.loaded.append(name)
        if isinstance(self.towers[name], Exception):
            raise self.towers[name]
        return self.towers[name]


def test_a_working_accelerator_stays_in_use() -> None:
    machine = Machine(fast=Fake(RIGHT), cpu=Fake(RIGHT))
    tower = Fallback(["fast"], machine)
    assert np.array_equal(tower(RIGHT), RIGHT) and tower.accelerator == "fast" and machine.loaded == ["fast"]
    assert tower.with_features(RIGHT, "map")[0] is RIGHT and not tower.failures


def test_an_accelerator_that_does_not_load_is_skipped() -> None:
    machine = Machine(first=EngineError("no such device"), second=Fake(RIGHT), cpu=Fake(RIGHT))
    tower = Fallback(["first", "second"], machine)
    assert tower.accelerator == "second" and tower.failures == {"first": "no such device"}


def test_an_accelerator_with_wrong_answers_is_skipped() -> None:
    def check(tower: Tower) -> None:
        if not np.array_equal(tower(RIGHT), RIGHT):
            raise EngineError("wrong known answers")

    machine = Machine(fast=Fake(RIGHT[::-1]), cpu=Fake(RIGHT))
    tower = Fallback(["fast"], machine, check)
    assert tower.accelerator == "cpu" and tower.failures == {"fast": "wrong known answers"}
    with pytest.raises(EngineError, match="wrong known answers"):
        Fallback([], Machine(cpu=Fake(RIGHT * 2)), check)


@pytest.mark.parametrize("failure", [EngineError("out of memory"), np.full((3, 3), np.nan, np.float32)])
def test_an_accelerator_that_fails_later_is_never_tried_again(failure: Any) -> None:
    fast = Fake(RIGHT)
    machine = Machine(fast=fast, cpu=Fake(RIGHT))
    tower = Fallback(["fast"], machine)
    tower(RIGHT)
    fast.result = failure
    assert np.array_equal(tower(RIGHT), RIGHT) and tower.accelerator == "cpu" and list(tower.failures) == ["fast"]
    fast.result, runs = RIGHT, fast.runs
    assert np.array_equal(tower(RIGHT), RIGHT) and fast.runs == runs and machine.loaded.count("fast") == 1


def test_inputs_that_fail_everywhere_do_not_disable_the_accelerator() -> None:
    wrong = EngineError("wrong shape")
    fast, cpu = Fake(RIGHT), Fake(wrong)
    tower = Fallback(["fast"], Machine(fast=fast, cpu=cpu))
    fast.result = wrong
    with pytest.raises(EngineError, match="wrong shape"):
        tower(RIGHT)
    assert tower.accelerator == "fast" and not tower.failures


def test_onnx_without_the_provider_runs_on_the_cpu(tiny: Any) -> None:
    data, available = tiny.files["image.onnx"], onnx.accelerators()
    absent = next(name for name in ("tensorrt", "cuda", "coreml", "directml") if name not in available)
    with pytest.raises(EngineError, match=f"no {absent}"):
        onnx.Tower(data, accelerator=absent)
    tower = load_tower("onnx", data, threads=1, accelerator=absent)
    assert isinstance(tower, Fallback) and tower.accelerator == "cpu" and absent in tower.failures
    pixels = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(tower(pixels), tiny.image_vectors(pixels), atol=1e-5)
    with pytest.raises(EngineError, match="unknown accelerator 'abacus'"):
        onnx.Tower(data, accelerator="abacus")


def test_a_model_falls_back_when_an_accelerator_returns_wrong_known_answers(
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
