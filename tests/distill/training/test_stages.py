"""Every kind of stage on two processes and on one: frozen parts under DDP and FSDP, and runs that change the number."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from distill.training.optimizer import rate_factors
from tests.distill.training.ranks import run_two_ranks
from tests.distill.training.two_ranks_stages import (
    CASES,
    PLANS,
    RESUMED,
    STAGES,
    STEPS,
    STOP,
    UNEVEN,
    make_trainer,
    train,
)

# float64 throughout; AdamW divides by the gradients' size, which enlarges the rounding of small ones.
TOLERANCE = 1e-7
Result = dict[str, dict[str, torch.Tensor]]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What two processes left of every case, and of the runs that one process began."""
    folder = tmp_path_factory.mktemp("stages")
    for strategy in RESUMED:
        train("vit", strategy, folder / f"from-one-{strategy}", STOP)
    run_two_ranks("tests.distill.training.two_ranks_stages", str(folder))
    yield folder
    shutil.rmtree(folder)  # a gigabyte of checkpoints


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Result, Path]]:
    """What one process ends with, without gradient caching."""
    folders = {plan: tmp_path_factory.mktemp(plan) for plan in PLANS}
    return {plan: (train(plan, "ddp", folder / "run"), folder / "run") for plan, folder in folders.items()}


def assert_same(got: Result, wanted: Result) -> None:
    for kind, values in wanted.items():
        assert got[kind].keys() == values.keys()
        for name, value in values.items():
            assert torch.allclose(got[kind][name].double(), value.double(), rtol=0, atol=TOLERANCE), (kind, name)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_end_with_the_weights_of_one(
    case: str, together: Path, alone: dict[str, tuple[Result, Path]]
) -> None:
    assert_same(torch.load(together / case / "result.pt", weights_only=True), alone[case.partition("-")[0]][0])


@pytest.mark.parametrize("plan", PLANS)
def test_a_run_in_parts_ends_with_the_weights_of_one_that_is_not(
    plan: str, alone: dict[str, tuple[Result, Path]], tmp_path: Path
) -> None:
    """The oracle of gradient caching is the plain gradient of the whole batch; a frozen BatchNorm allows it."""
    assert_same(train(plan, "ddp-parts", tmp_path / "run"), alone[plan][0])


@pytest.mark.parametrize("case", [*CASES, *PLANS])
def test_exactly_what_is_not_frozen_learns(case: str, together: Path, alone: dict[str, tuple[Result, Path]]) -> None:
    plan = case.partition("-")[0]
    moved = json.loads(((together / case) if case in CASES else alone[case][1]).joinpath("moved.json").read_text())
    names = PLANS[plan][1]
    weights = {name for name, value in make_trainer(plan, "ddp", together / "fresh").model.named_parameters()}
    assert len(moved) == STEPS * len(names)
    for number, changed in enumerate(moved):
        stage = STAGES[names[number // STEPS]]
        still = [
            *stage.get("frozen", ()),
            *["image."] * ("texts_only" in stage),
            *["image.trunk."] * ("features" in stage),
        ]
        learning = {name for name in weights if not name.startswith(tuple(still))}
        if "texts_only" in stage:
            learning.discard("logit_scale")  # no loss of texts alone has a scale
        assert set(changed) == learning, names[number // STEPS]


@pytest.mark.parametrize("strategy", RESUMED)
@pytest.mark.parametrize("begun", ["from-one", "from-two"])
def test_another_number_of_processes_resumes_a_run(
    begun: str, strategy: str, together: Path, alone: dict[str, tuple[Result, Path]]
) -> None:
    """Its weights and its learning rates are those of a run that nothing stopped."""
    folder = together / f"{begun}-{strategy}"
    if begun == "from-one":
        result = torch.load(folder / "result.pt", weights_only=True)
    else:
        result = train("vit", strategy, folder)
    assert_same(result, alone["vit"][0])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    recipe = make_trainer("vit", strategy, together / "fresh").recipe
    factors = rate_factors(recipe.stages, [STEPS] * len(recipe.stages), recipe.optim)
    assert [line["lr"] for line in lines] == pytest.approx([recipe.optim.lr * factor for factor in factors])
    assert len(lines) == STEPS * len(STAGES)


@pytest.mark.parametrize("lacks", UNEVEN)
def test_uneven_batches_stop_every_process(lacks: str, together: Path) -> None:
    """Gathered, they would be garbage on one process and abort the other."""
    rows = "[[5, 7], [4, 6]]" if lacks == "photo" else "[[5, 7], [5, 6]]"
    for rank in range(2):
        said = (together / f"uneven-{lacks}/rank-{rank}.txt").read_text()
        assert said == f"at step 1, the processes have different numbers of photos and texts: {rows}"
