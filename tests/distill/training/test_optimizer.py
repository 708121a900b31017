"""Rates, averages, precision, and what trades time for memory."""

import dataclasses
import io
import math
import shutil
from pathlib import Path

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from distill.config import LossConfig, OptimConfig, Stage
from distill.distributed import choose_device, seed_all
from distill.training.gradient_cache import untouched_statistics
from distill.training.memory import compile_towers, recompute_activations
from distill.training.optimizer import EMA, parameter_groups, rate_factors, schedule
from distill.training.parallel import gather_optimizer, gather_state, load_optimizer, load_state
from distill.training.task import DistillTask
from distill.training.trainer import Trainer
from mobileclip.errors import ConfigError
from mobileclip.towers import CLIP, ImageConfig, ModelConfig, model_names
from tests.distill.training.toys import DIM, EVERY_LOSS, OTHER, ToyFeed, toy_batch, toy_model, toy_recipe


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    rates = [schedule(step, 100, 10) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[55] == pytest.approx(0.01 + 0.99 * (1 + math.cos(math.pi * 45 / 90)) / 2)
    assert max(rates) == rates[9] == rates[10] == 1.0 and 0.01 < rates[-1] < 0.011
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert schedule(0, 4, 200) == 0.5, "warm-up is at most half of the run"
    assert schedule(0, 10, 0) == 1.0


@pytest.mark.parametrize(("kind", "half", "last"), [("linear", 0.505, 0.021), ("constant", 1.0, 1.0)])
def test_other_schedules_warm_up_too(kind: str, half: float, last: float) -> None:
    rates = [schedule(step, 100, 10, kind) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[55] == pytest.approx(half) and rates[99] == pytest.approx(last, abs=1e-3)


def test_texts_and_photos_have_a_rate_that_rises_and_falls_for_each() -> None:
    texts, photos = Stage(2, texts_only=True), Stage(1, px=64, rate=0.5)
    stages, lengths = [texts, texts, photos, photos, texts], [3, 2, 4, 0, 1]
    optim = OptimConfig(warmup=2)
    expected = [*(schedule(step, 5, 2) for step in range(5)), *(0.5 * schedule(step, 4, 2) for step in range(4)), 1.0]
    assert list(rate_factors(stages, lengths, optim)) == pytest.approx(expected)


def test_the_optimizer_gets_its_settings(tmp_path: Path) -> None:
    settings = {"optim.betas": [0.8, 0.95], "optim.schedule": "constant", "optim.warmup": 2, "optim.lr": 0.25}
    trainer = Trainer(toy_recipe(tmp_path, **settings), toy_model(), ToyFeed(6), tmp_path)
    assert all(group["betas"] == (0.8, 0.95) for group in trainer.optimizer.param_groups)
    assert [step.lr for step in trainer.run()] == pytest.approx([0.125, 0.25, 0.25, 0.25, 0.25, 0.25])
    plain = Trainer(toy_recipe(tmp_path), toy_model(), ToyFeed(6), tmp_path)
    assert all(group["betas"] == (0.9, 0.98) for group in plain.optimizer.param_groups)


def test_each_tower_has_its_rate() -> None:
    task = DistillTask(toy_model(), LossConfig({"siglip": 1.0, "augmented": 1.0}), (DIM,))
    names = {id(p): name for name, p in task.named_parameters()}

    def rates(optim: OptimConfig) -> dict[str, float]:
        return {names[id(p)]: g["rate"] for g in parameter_groups(task, optim) for p in g["params"]}

    own = rates(OptimConfig(lr=1.0, lr_trunk=2.0, lr_text=3.0))
    assert own.keys() == set(names.values())
    for name, rate in own.items():
        wanted = 2.0 if name.startswith("model.image.trunk.") else 3.0 if name.startswith("model.text.") else 1.0
        assert rate == wanted, name
    assert set(rates(OptimConfig(lr=1.0, lr_trunk=2.0)).values()) == {1.0, 2.0}


TRUNKS = ("mobilenetv4_conv_small", "efficientvit_b0", "efficientvit_m0", "convnext_atto", "levit_128s", "mobileone_s0")


def decay_of(task: DistillTask) -> dict[str, float]:
    """Each parameter's weight decay, by name."""
    names = {id(p): name for name, p in task.named_parameters()}
    groups = parameter_groups(task, OptimConfig(weight_decay=0.1))
    found = {names[id(p)]: g["weight_decay"] for g in groups for p in g["params"]}
    assert found.keys() == set(names.values())
    return found


@pytest.mark.parametrize("model", model_names() + [f"trunk:{trunk}" for trunk in TRUNKS])
def test_only_linear_layers_and_convolutions_decay(model: str) -> None:
    config = toy_model().config
    if model.startswith("trunk:"):
        config = dataclasses.replace(config, image=ImageConfig(model.removeprefix("trunk:")))
    else:
        config = ModelConfig.load(model)
    with torch.device("meta"):
        task = DistillTask(CLIP(config), LossConfig({"siglip": 1.0, "augmented": 1.0}), (config.embed_dim,))
    layers = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d)
    matrices = {f"{name}.weight" for name, module in task.named_modules() if isinstance(module, layers)}
    for name, decay in decay_of(task).items():
        assert decay == (0.1 if name in matrices else 0.0), name
    spared = ("gamma", "pos_embed", "cls_token", "positions", "scale", "token_embedding.weight", "attention_biases")
    assert not any(name.endswith(spared) for name in matrices)
    trunk = task.model.image.trunk
    timms_own = trunk.no_weight_decay() if hasattr(trunk, "no_weight_decay") else set()
    assert not {f"model.image.trunk.{name}" for name in timms_own} & matrices


def test_attention_of_torch_decays() -> None:
    task = DistillTask(toy_model(), LossConfig({"contrastive": 1.0}), (DIM,))
    task.add_module("attention", torch.nn.MultiheadAttention(8, 2))
    own = {name: decay for name, decay in decay_of(task).items() if name.startswith("attention")}
    assert own == {
        "attention.in_proj_weight": 0.1,
        "attention.in_proj_bias": 0.0,
        "attention.out_proj.weight": 0.1,
        "attention.out_proj.bias": 0.0,
    }


def ramp(decay: float, updates: int) -> float:
    """The decay of an update after so many others; 0 for the first, which copies."""
    return min(decay, (1 + updates) / (10 + updates)) if updates else 0.0


def test_the_average_is_torchs() -> None:
    torch.manual_seed(0)
    model = toy_model("test_efficientnet")
    ours = EMA(model, 0.2)  # the ramp passes it at the second update
    theirs = AveragedModel(
        model,
        avg_fn=lambda average, value, updates: average + (value - average) * (1 - ramp(0.2, int(updates))),
        use_buffers=True,
    )
    for _ in range(4):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.add_(torch.randn_like(value) if value.is_floating_point() else 1)
        ours.update(model)
        theirs.update_parameters(model)
    for name, value in theirs.module.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(ours.values[name], value, atol=1e-6), name
    assert all(int(v) == 4 for name, v in ours.values.items() if name.endswith("num_batches_tracked"))


def averaged(folder: Path, stop: int = 0) -> tuple[Trainer, list[dict[str, torch.Tensor]]]:
    """Train 20 steps with the default decay, the trunk frozen for the first 10; perhaps dropped after a step.

    Returns:
        The trainer, and the weights before the first step and after each one in float64.
    """
    stages = [{"epochs": 1, "px": 32, "frozen": ["image.trunk"]}, {"epochs": 1, "px": 32}]
    settings = {"stages": stages, "save_every": 4, "optim.ema": OptimConfig().ema}

    def trainer() -> Trainer:
        return Trainer(toy_recipe(folder, **settings), toy_model("test_efficientnet"), ToyFeed(10), folder)

    def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
        return {name: value.detach().double().clone() for name, value in model.state_dict().items()}

    made = trainer()
    made.resume()
    found = [weights(made.model)]
    for step in made.run():
        found.append(weights(made.model))
        if step.step == stop:
            break
    return made, found


def test_the_average_of_a_short_run_leaves_untrained_weights_behind(tmp_path: Path) -> None:
    """Against a slow loop, with a part that is frozen at first."""
    trainer, weights = averaged(tmp_path)
    assert trainer.ema and len(weights) == 21
    moved = 0
    for name, value in trainer.ema.values.items():
        expected = weights[1][name]
        for updates, step in enumerate(weights[2:], 1):
            decay = ramp(0.998, updates)
            expected = decay * expected + (1 - decay) * step[name] if value.is_floating_point() else step[name]
        assert torch.allclose(value.double(), expected, rtol=1e-5, atol=1e-6), name
        if value.is_floating_point():
            left = (value - weights[0][name]).norm() / (weights[-1][name] - weights[0][name]).norm()
            assert left.isnan() or left > 0.5, name
            moved += int(left > 0.5)
    assert moved > 50


def test_the_average_of_frozen_weights_is_the_weights(tmp_path: Path) -> None:
    trainer, weights = averaged(tmp_path, stop=7)
    assert trainer.ema
    frozen = {name: value for name, value in trainer.ema.values.items() if name.startswith("image.trunk.")}
    assert len(frozen) > 50 and all(torch.equal(value.double(), weights[0][name]) for name, value in frozen.items())


def test_an_average_resumed_within_its_ramp_is_the_same(tmp_path: Path) -> None:
    whole, _ = averaged(tmp_path / "whole")
    averaged(tmp_path / "parts", stop=7)
    averaged(tmp_path / "parts", stop=14)
    parts, weights = averaged(tmp_path / "parts")
    assert len(weights) == 9, "resumed at step 12"
    assert whole.ema and parts.ema and whole.ema.updates == parts.ema.updates == 20
    assert all(torch.equal(value, parts.ema.values[name]) for name, value in whole.ema.values.items())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("micro", [0, 3])
def test_half_precision_learns_as_single_precision_does(tmp_path: Path, precision: str, micro: int) -> None:
    """The towers compute in it, the weights stay float32, and losses agree as far as its digits go."""
    losses = {"contrastive": 1.0, "feature": 1.0, "affinity": 0.0}
    found = {}
    for name in ("fp32", precision):
        settings = {"loss": losses, "optim.precision": name, "optim.micro_batch": micro}
        trainer = Trainer(toy_recipe(tmp_path / name, **settings), toy_model(), ToyFeed(12), tmp_path / name)
        seen: set[torch.dtype] = set()
        trainer.model.text.blocks[0].fc.register_forward_hook(lambda m, i, out, seen=seen: seen.add(out.dtype))
        found[name] = [step.losses["loss"] for step in trainer.run()]
        assert seen == {{"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]}
        assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
        assert trainer.scaler.is_enabled() == (name == "fp16")
    assert found[precision][0] == pytest.approx(found["fp32"][0], rel=0.01)
    assert found[precision] != found["fp32"]
    if precision == "bf16":  # the scale of float16 has to settle first, and steps that overflow are left out
        assert found[precision] == pytest.approx(found["fp32"], rel=0.02)
    assert found[precision][-1] < found[precision][0]


@pytest.mark.parametrize("trunk", ["test_vit", "test_efficientnet"])
def test_activations_computed_again_give_the_same_gradients(trunk: str) -> None:
    """Less is kept for the backward pass, and BatchNorm counts a batch once."""
    found, kept = [], []
    for again in (False, True):
        torch.manual_seed(0)
        model = toy_model(trunk, dropout=0.2)
        task = DistillTask(model, LossConfig(EVERY_LOSS), (DIM, OTHER)).train()
        if again:
            recompute_activations(model)
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: (saved.append(t.numel()), t)[1], lambda t: t
        ):
            seed_all(7)
            loss = task(toy_batch())["loss"]
        kept.append(sum(saved))
        with untouched_statistics(task):
            loss.backward()
        found.append({**{n: p.grad for n, p in task.named_parameters()}, **dict(task.named_buffers())})
    assert kept[1] < 0.6 * kept[0]
    for name, value in found[0].items():
        assert torch.allclose(found[1][name], value, rtol=1e-4, atol=1e-6), name


def test_a_trunk_that_cannot_says_so() -> None:
    model = toy_model()
    model.image.trunk.__class__ = type("Trunk", (torch.nn.Module,), {})
    with pytest.raises(ConfigError, match="test_vit doesn't support it"):
        recompute_activations(model)


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
def test_a_compiled_tower_gives_the_same_vectors_for_texts_of_any_length() -> None:
    plain, compiled, tokens = toy_model(), toy_model(), toy_batch().tokens
    for model in (plain, compiled):
        model.text.blocks = model.text.blocks[:1]
    compile_towers(compiled)
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    with torch.inference_mode():
        for length in (12, 5, 9):
            short = tokens[:, :length]
            assert torch.allclose(plain.encode_text(short), compiled.encode_text(short), atol=1e-5)


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="this machine has no cuda"):
        choose_device("cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto").type == "mps"


@pytest.mark.parametrize(("start", "lr", "end"), [(2.0, 3.0, 0.0), (9.0, 1e-3, math.log(100))])
def test_the_logit_scale_is_held_within_its_bounds(tmp_path: Path, start: float, lr: float, end: float) -> None:
    losses = {"contrastive": 1.0, "feature": 0.0, "affinity": 0.0}
    trainer = Trainer(toy_recipe(tmp_path, loss=losses, **{"optim.lr": lr}), toy_model(), ToyFeed(2), tmp_path)
    with torch.no_grad():
        trainer.model.logit_scale.fill_(start)
    next(trainer.run())
    assert float(trainer.model.logit_scale.detach()) == pytest.approx(end)


def test_a_state_goes_out_whole_and_comes_back(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    file = io.BytesIO()
    torch.save({"model": gather_state(model.state_dict()), "optimizer": gather_optimizer(optimizer, model)}, file)
    state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    other = torch.nn.Linear(3, 2)
    again = torch.optim.AdamW([{"params": [other.bias]}, {"params": [other.weight]}])  # groups may differ
    load_state(other.state_dict(), state["model"])
    load_optimizer(again, other, state["optimizer"])
    for module, one in ((model, optimizer), (other, again)):
        module.zero_grad()
        module(torch.tensor([[1.0, -2.0, 0.5]])).sum().backward()
        one.step()
    assert torch.equal(other.weight, model.weight) and torch.equal(other.bias, model.bias)
    with pytest.raises(ValueError, match="exist on one side only"):
        load_state(other.state_dict(), {"weight": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match="bias is"):
        load_state(other.state_dict(), {"weight": torch.zeros(2, 3), "bias": torch.zeros(5)})
    with pytest.raises(ValueError, match="the optimizer has no scale"):
        load_optimizer(again, other, {"scale": {}})
    with pytest.raises(ValueError, match=r"exp_avg of bias is \(5,\), not \(2,\)"):
        load_optimizer(again, other, {"bias": {"step": torch.ones(()), "exp_avg": torch.zeros(5)}})
