"""Photos with equal captions aren't each other's negatives."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distill.batch import Batch
from distill.config import LossConfig
from distill.losses import info_nce, siglip
from distill.losses.groups import group_texts, merge_groups
from distill.training.task import DistillTask
from mobileclip.tokenizer import Tokenizer
from tests.distill.training.toys import EVERY_LOSS, toy_batch, toy_model


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_groups_are_the_chains_of_equal_groups_and_texts(pairs: list[tuple[int, int]]) -> None:
    groups, texts = torch.tensor([p[0] for p in pairs]).long(), torch.tensor([p[1] for p in pairs]).long()
    linked = np.array([[a[0] == b[0] or a[1] == b[1] for b in pairs] for a in pairs], bool)
    linked = linked.reshape(len(pairs), len(pairs))
    for _ in pairs:
        linked = linked @ linked
    found = merge_groups(groups, texts).numpy()
    assert np.array_equal(found[:, None] == found[None, :], linked)


def test_captions_are_equal_regardless_of_case_and_spaces(mixed_model: Path) -> None:
    tokenizer = Tokenizer.load((mixed_model / "merges.txt.gz").read_bytes(), 16)
    texts = ["Red  cat", "red cat ", "a boat", "RED CAT", "two", "a  BOAT"]
    photos, groups = group_texts(torch.tensor([0, 1, 2]), torch.from_numpy(tokenizer(texts)).long())
    assert groups[:3].tolist() == photos.tolist()
    same = groups[:, None] == groups[None, :]
    expected = [{0, 1, 3}, {0, 1, 3}, {2, 5}, {0, 1, 3}, {4}, {2, 5}]
    assert [set(row.nonzero().flatten().tolist()) for row in same] == expected


def test_two_processes_group_as_one() -> None:
    groups, tokens = torch.tensor([0, 1, 2, 0]), torch.tensor([[1], [2], [1], [3], [2], [9]])
    whole = group_texts(groups, tokens)[1]
    shares = [(groups[rank::2], torch.cat([tokens[:4][rank::2], tokens[4:][rank::2]])) for rank in range(2)]
    sent: list[list[Tensor]] = []
    for share in shares:
        rows: list[Tensor] = []

        def send(values: Tensor, rows: list[Tensor] = rows) -> Tensor:
            rows.append(values)
            return values

        group_texts(*share, send)
        sent.append(rows)
    for rank, share in enumerate(shares):
        gathered = iter([torch.cat([rows[i] for rows in sent]) for i in range(2)])
        photos, texts = group_texts(*share, lambda _, gathered=gathered: next(gathered), rank)
        mine = whole[[rank, rank + 2, 4 + rank]]
        assert torch.equal(texts[:, None] == texts[None, :], mine[:, None] == mine[None, :])
        assert torch.equal(photos, texts[:2])


@pytest.mark.parametrize("name", ["contrastive", "siglip"])
def test_equal_captions_count_as_equal_labels(name: str) -> None:
    batch = toy_batch(n=6, extra=2)
    batch.groups[:] = torch.arange(6)
    batch.tokens[3] = batch.tokens[0]
    batch.tokens[7] = batch.tokens[1]
    weights = {**dict.fromkeys(EVERY_LOSS, 0.0), name: 1.0}
    task = DistillTask(toy_model(), LossConfig(weights, bank=0), (32, 24)).eval()

    def loss(of: Batch) -> float:
        return float(task(of)[name])

    by_caption = loss(batch)
    batch.groups[3] = 0
    assert loss(batch) == pytest.approx(by_caption, abs=1e-6)
    encoded, scale = task.encode(batch.pixels, batch.tokens), task.model.logit_scale.exp()
    pairs = encoded["image"], encoded["text"], scale
    plain = torch.arange(6), torch.arange(8)
    joined = torch.tensor([0, 1, 2, 0, 4, 5]), torch.tensor([0, 1, 2, 0, 4, 5, 6, 1])
    if name == "contrastive":
        assert by_caption == pytest.approx(float(info_nce(*pairs, *joined).detach()), abs=1e-5)
    else:
        bias = torch.tensor(LossConfig().bias)
        assert by_caption == pytest.approx(float(siglip(*pairs, bias, *joined).detach()), abs=1e-5)
        assert abs(float(siglip(*pairs, bias, *plain).detach()) - by_caption) > 1e-3


def test_two_photos_with_one_caption_cost_only_the_entropy_of_their_targets() -> None:
    image = torch.eye(4)[[0, 0, 1, 2]]
    groups, texts = group_texts(torch.arange(4), torch.tensor([[5], [5], [6], [7]]))
    loss = info_nce(image, image, torch.tensor(100.0), groups, texts)
    assert float(loss) == pytest.approx(np.log(2) / 2, abs=1e-5)
