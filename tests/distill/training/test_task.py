"""A task: which losses it adds up, on what, and what it refuses."""

import dataclasses

import pytest
import torch

from distill.batch import Batch
from distill.config import LossConfig
from distill.losses import affinity, ensemble, feature, info_nce
from distill.training.task import DistillTask, mask_patches
from mobileclip.errors import ConfigError
from tests.distill.training.toys import DIM, EVERY_LOSS, OTHER, toy_batch, toy_model


def only(bank: int = 4, **weights: float) -> LossConfig:
    return LossConfig({**dict.fromkeys(EVERY_LOSS, 0.0), **weights}, bank=bank)


def test_the_loss_is_the_weighted_sum_of_every_term() -> None:
    torch.manual_seed(0)
    task = DistillTask(toy_model(), LossConfig(EVERY_LOSS), (DIM, OTHER))
    losses = task(toy_batch())
    assert set(losses) == {"loss", "logit_scale", *EVERY_LOSS}
    total = sum(weight * float(losses[name]) for name, weight in EVERY_LOSS.items())
    assert float(losses["loss"].detach()) == pytest.approx(total, rel=1e-5)
    assert all(float(losses[name]) > 0 for name in EVERY_LOSS)
    assert [name for name, value in losses.items() if value.requires_grad] == ["loss"]


@pytest.mark.parametrize("name", EVERY_LOSS)
def test_each_loss_alone_is_what_it_is_beside_the_others(name: str) -> None:
    batch, model = toy_batch(), toy_model()
    torch.manual_seed(5)
    alone = DistillTask(model, only(**{name: 1.0}), (DIM, OTHER))
    torch.manual_seed(5)
    together = DistillTask(model, LossConfig(EVERY_LOSS, bank=4), (DIM, OTHER))
    alone.load_state_dict({key: value for key, value in together.state_dict().items() if key in alone.state_dict()})
    torch.manual_seed(6)
    mine = alone(batch)
    torch.manual_seed(6)
    theirs = together(batch)
    assert set(mine) == {"loss", name, "logit_scale"}
    assert float(mine[name]) == pytest.approx(float(theirs[name]), rel=1e-5)


def test_terms_are_those_of_the_losses_on_the_students_own_vectors() -> None:
    batch, model = toy_batch(), toy_model()
    image, text = model.encode_image(batch.pixels), model.encode_text(batch.tokens)
    scale, n = model.logit_scale.exp(), len(image)
    own, other = batch.teachers
    ids = torch.cat([batch.groups, torch.tensor([-1, -2, -3, -4])])
    weights = only(contrastive=1.0, affinity=1.0, ensemble=1.0, feature=1.0, posterior=1.0)
    losses = DistillTask(model, weights, (DIM, OTHER))(batch)
    near = batch.reference[0]
    to_texts = affinity(20 * image @ near.text.T, 20 * own.image @ near.text.T)
    to_photos = affinity(20 * text @ near.image.T, 20 * own.text @ near.image.T)
    short = [one._replace(text=one.text[:n]) for one in (own, other)]
    assert batch.classes is not None and batch.posterior is not None
    wanted = {
        "contrastive": info_nce(image, text, scale, batch.groups, ids),
        "affinity": (to_texts + to_photos) / 2,
        "ensemble": ensemble(image, text[:n], scale, short),
        "feature": feature(image, own.image) + feature(text, own.text),
        "posterior": affinity(20 * image @ batch.classes.T, batch.posterior),
    }
    for name, value in wanted.items():
        assert float(losses[name]) == pytest.approx(float(value.detach()), rel=1e-5), name


def test_without_a_bank_affinities_are_within_the_batch_and_widths_may_differ() -> None:
    batch, model = toy_batch(reference=0), toy_model()
    losses = DistillTask(model, only(affinity=1.0, bank=0), (DIM, OTHER))(batch)
    image, text = model.encode_image(batch.pixels), model.encode_text(batch.tokens)
    parts = [
        affinity(20 * a @ b.T, 20 * c @ d.T)
        for one in batch.teachers
        for a, b, c, d in ((image, text, one.image, one.text), (text, image, one.text, one.image))
    ]
    assert float(losses["affinity"]) == pytest.approx(float(torch.stack(parts).mean().detach()), rel=1e-5)


def test_texts_alone_are_compared_with_both_sides_of_the_reference() -> None:
    batch, model = toy_batch(n=0, extra=6), toy_model()
    losses = DistillTask(model, LossConfig(EVERY_LOSS), (DIM, OTHER))(batch)
    text, one, near = model.encode_text(batch.tokens), batch.teachers[0], batch.reference[0]
    wanted = [affinity(20 * text @ side.T, 20 * one.text @ side.T) for side in (near.image, near.text)]
    assert set(losses) == {"loss", "logit_scale", "feature", "affinity"}
    assert float(losses["affinity"]) == pytest.approx(float(torch.stack(wanted).mean().detach()), rel=1e-5)
    assert float(losses["feature"]) == pytest.approx(float(feature(text, one.text).detach()), rel=1e-5)


@pytest.mark.parametrize("count", [1, 3, 4, 23])
@pytest.mark.parametrize("causal", [True, False])
def test_texts_in_chunks_of_like_length_have_the_vectors_they_always_had(count: int, causal: bool) -> None:
    """Rows come back in their order, and the padding that was left out was never seen."""
    model = toy_model(causal=causal).eval()
    tokens = toy_batch(n=0, extra=count).tokens
    texts = DistillTask(model, only(contrastive=1.0)).encode(torch.zeros(0, 3, 1, 1), tokens)["text"]
    assert torch.allclose(texts, model.encode_text(tokens), atol=1e-6)


def test_a_share_of_the_patches_is_masked_in_each_photo() -> None:
    torch.manual_seed(0)
    masked = mask_patches(torch.ones(200, 1, 100, 100), 0.75, 32)
    patches = torch.nn.functional.pad(masked, (0, 28, 0, 28), value=-1)[:, 0].unfold(1, 32, 32).unfold(2, 32, 32)
    kept = patches[..., 0, 0]  # 4 × 4 patches, the last row and column cut
    assert torch.equal(kept.sum(dim=(1, 2)), torch.full((200,), 4.0))
    assert torch.equal(patches[:, :3, :3].amin(dim=(3, 4)), patches[:, :3, :3].amax(dim=(3, 4)))
    assert kept.mean(dim=0).min() > 0.1 and kept.mean(dim=0).max() < 0.4  # none is spared
    assert (kept[0] != kept[1]).any()


def test_parameters_of_losses_learn_with_the_student() -> None:
    task = DistillTask(toy_model(), only(siglip=1.0, augmented=1.0), (DIM, OTHER))
    names = {name for name, _ in task.loss_parameters()}
    assert {"model.logit_scale", "bias", "fuse_image.0.weight", "fuse_text.1.bias"} <= names
    assert not any(name.startswith(("model.image", "model.text")) for name in names)
    task(toy_batch())["loss"].backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for _, value in task.loss_parameters())


@pytest.mark.parametrize(
    ("weights", "widths", "said"),
    [
        ({"feature": 1.0}, (OTHER,), f"{OTHER} dimensions, the student's {DIM}: set loss.feature to 0"),
        ({"interactive": 1.0, "gradient": 1.0}, (OTHER, 8), "set loss.gradient and loss.interactive to 0"),
        ({"affinity": 1.0}, (OTHER,), "or loss.bank to 0"),
        ({"posterior": 1.0}, (OTHER, DIM), "the first teacher has"),
        ({"ensemble": 1.0}, (), "loss.ensemble needs a teacher"),
    ],
)
def test_losses_that_no_teacher_can_teach_are_refused(
    weights: dict[str, float], widths: tuple[int, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        DistillTask(toy_model(), only(**weights), widths)


def test_batches_move_whole() -> None:
    batch = toy_batch()
    moved = batch.to(torch.device("meta"))
    tensors = [moved.pixels, moved.tokens, moved.groups, moved.classes, moved.posterior]
    tensors += [side for one in (*moved.teachers, *moved.reference) for side in one[:2]]
    assert all(value is not None and value.device.type == "meta" for value in tensors)
    assert {field.name for field in dataclasses.fields(Batch)} == {
        *("pixels", "tokens", "groups", "teachers", "reference", "classes", "posterior", "tried")
    }
    assert dataclasses.replace(batch, tried=11).unread == 3
