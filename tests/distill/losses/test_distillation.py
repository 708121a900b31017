"""The losses of the distillation papers against NumPy in float64, their degenerate cases, gradients, and two ranks."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.losses import (
    TeacherEmbeddings,
    affinity,
    augmented,
    ensemble,
    feature,
    gradient,
    info_nce,
    info_nce_gradients,
    interactive,
    siglip,
    soft_sigmoid,
)

N, D, E = 6, 8, 5


def unit(seed: int, *shape: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.log1p(np.exp(-x))


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array)


IMAGE, TEXT = unit(0, N, D), unit(1, N, D)
SAME = TeacherEmbeddings(tensor(unit(2, N, D)), tensor(unit(3, N, D)), 30.0)
OTHER = TeacherEmbeddings(tensor(unit(4, N, E)), tensor(unit(5, N, E)), 50.0)
GROUPS = np.array([0, 1, 2, 1, 3, 4])
SCALE = torch.tensor(7.0, dtype=torch.float64)


def test_siglip_is_the_pairwise_sigmoid() -> None:
    logits = 7.0 * IMAGE @ TEXT.T - 3
    sign = np.where(GROUPS[:, None] == GROUPS[None, :], 1.0, -1.0)
    wanted = -log_sigmoid(sign * logits).sum() / N
    for chunk in (0, 1, 4):
        got = siglip(tensor(IMAGE), tensor(TEXT), SCALE, torch.tensor(-3.0), tensor(GROUPS), chunk=chunk)
        assert float(got) == pytest.approx(wanted, rel=1e-10)


def test_siglip_with_further_texts_is_averaged_over_photos() -> None:
    texts, ids = unit(8, N + 3, D), np.array([*GROUPS, 7, 1, 8])
    wanted = 0.0
    for photo, group in zip(IMAGE, GROUPS, strict=True):
        for text, other in zip(texts, ids, strict=True):
            sign = 1 if group == other else -1
            wanted -= log_sigmoid(np.float64(sign * (7.0 * photo @ text - 3))) / N
    for chunk in (0, 4):
        got = siglip(tensor(IMAGE), tensor(texts), SCALE, torch.tensor(-3.0), tensor(GROUPS), tensor(ids), chunk=chunk)
        assert float(got) == pytest.approx(wanted, rel=1e-10)


def test_siglip_is_open_clips() -> None:
    from open_clip.loss import SigLipLoss

    scale, bias = torch.tensor(10.0), torch.tensor(-10.0)
    theirs = SigLipLoss()(tensor(IMAGE).float(), tensor(TEXT).float(), scale, bias)
    ours = siglip(tensor(IMAGE).float(), tensor(TEXT).float(), scale, bias, torch.arange(N))
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)


def test_ensemble_averages_probabilities_and_gives_texts_a_softmax_of_their_own() -> None:
    wanted = 0.0
    for mine, others, side in ((IMAGE, TEXT, 0), (TEXT, IMAGE, 1)):
        q = softmax(7.0 * mine @ others.T)
        p = np.mean([softmax(t.scale * t[side].numpy() @ t[1 - side].numpy().T) for t in (SAME, OTHER)], axis=0)
        assert np.allclose(p.sum(axis=1), 1)
        wanted += (p * np.log(p / q)).sum() / N / 2
    got = ensemble(tensor(IMAGE), tensor(TEXT), SCALE, [SAME, OTHER])
    assert float(got) == pytest.approx(wanted, rel=1e-9)


def test_an_ensemble_of_one_is_affinity_mimicking() -> None:
    to_text = affinity(SCALE * tensor(IMAGE) @ tensor(TEXT).T, OTHER.scale * OTHER.image @ OTHER.text.T)
    to_image = affinity(SCALE * tensor(TEXT) @ tensor(IMAGE).T, OTHER.scale * OTHER.text @ OTHER.image.T)
    got = ensemble(tensor(IMAGE), tensor(TEXT), SCALE, [OTHER])
    assert float(got) == pytest.approx(float(to_text + to_image) / 2, rel=1e-9)
    assert float(ensemble(SAME.image, SAME.text, torch.tensor(SAME.scale), [SAME])) == pytest.approx(0, abs=1e-9)


def test_interactive_takes_its_negatives_from_the_teacher() -> None:
    same = GROUPS[:, None] == GROUPS[None, :]
    targets = same / same.sum(axis=1, keepdims=True)
    wanted = 0.0
    for mine, theirs in ((IMAGE, SAME.text.numpy()), (TEXT, SAME.image.numpy())):
        wanted -= (targets * np.log(softmax(7.0 * mine @ theirs.T))).sum() / N / 2
    got = interactive(tensor(IMAGE), tensor(TEXT), SAME, SCALE, tensor(GROUPS))
    assert float(got) == pytest.approx(wanted, rel=1e-6)
    own = TeacherEmbeddings(tensor(IMAGE), tensor(TEXT), 1.0)
    plain = info_nce(tensor(IMAGE), tensor(TEXT), SCALE, torch.arange(N))
    assert float(interactive(tensor(IMAGE), tensor(TEXT), own, SCALE, torch.arange(N))) == pytest.approx(float(plain))


def test_the_closed_gradients_are_autograds() -> None:
    image, text = tensor(IMAGE).requires_grad_(), tensor(TEXT).requires_grad_()
    wanted = torch.autograd.grad(N * info_nce(image, text, SCALE, torch.arange(N)), (image, text))
    got = info_nce_gradients(image, text, SCALE)
    assert all(torch.allclose(g, w, rtol=1e-6, atol=1e-8) for g, w in zip(got, wanted, strict=True))


def test_gradient_distillation_vanishes_for_the_teacher_itself() -> None:
    assert float(gradient(SAME.image, SAME.text, SAME, torch.tensor(SAME.scale))) == pytest.approx(0, abs=1e-12)
    mine = info_nce_gradients(tensor(IMAGE), tensor(TEXT), SCALE)
    theirs = info_nce_gradients(SAME.image, SAME.text, torch.tensor(SAME.scale))
    wanted = sum(float(((m - t) ** 2).sum(dim=1).mean()) for m, t in zip(mine, theirs, strict=True))
    assert float(gradient(tensor(IMAGE), tensor(TEXT), SAME, SCALE)) == pytest.approx(wanted, rel=1e-6)


def test_augmented_is_info_nce_on_fused_vectors() -> None:
    torch.manual_seed(0)
    fuse = (torch.nn.Linear(D + E, 4).double(), torch.nn.Linear(D + E, 4).double())
    parts = []
    for layer, mine, theirs in ((fuse[0], IMAGE, OTHER.image), (fuse[1], TEXT, OTHER.text)):
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        fused = np.concatenate([mine, theirs.numpy()], axis=1) @ weight.T + bias
        parts.append(tensor(fused / np.linalg.norm(fused, axis=1, keepdims=True)))
    wanted = info_nce(parts[0], parts[1], SCALE, tensor(GROUPS))
    got = augmented(tensor(IMAGE), tensor(TEXT), OTHER, fuse, SCALE, tensor(GROUPS))
    assert float(got.detach()) == pytest.approx(float(wanted), rel=1e-9)


def test_soft_sigmoid_is_cross_entropy_and_not_the_sigmoid_of_a_mean() -> None:
    student, teacher = (np.random.default_rng(s).normal(size=(4, 7)) * 2 for s in (1, 2))
    p = 1 / (1 + np.exp(-teacher))

    def entropy(z: np.ndarray) -> float:
        return float((-p * log_sigmoid(z) - (1 - p) * log_sigmoid(-z)).sum(axis=1).mean())

    got = soft_sigmoid(tensor(student), tensor(teacher))
    assert float(got) == pytest.approx(entropy(student) - entropy(teacher), rel=1e-9)
    assert float(soft_sigmoid(tensor(teacher), tensor(teacher))) == pytest.approx(0, abs=1e-12)
    unsure = tensor(student).requires_grad_()
    (pull,) = torch.autograd.grad(soft_sigmoid(unsure, torch.zeros(4, 7, dtype=torch.float64)), unsure)
    assert (pull.abs() > 1e-3).any()  # a teacher that is undecided still pulls a student that is not


Loss = Callable[[Tensor, Tensor, Tensor, TeacherEmbeddings, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "info_nce": lambda i, t, s, teacher, ids: info_nce(i, t, s, ids),
    "siglip": lambda i, t, s, teacher, ids: siglip(i, t, s, torch.tensor(-2.0, dtype=torch.float64), ids, chunk=4),
    "ensemble": lambda i, t, s, teacher, ids: ensemble(i, t, s, [teacher, teacher._replace(scale=9.0)]),
    "feature": lambda i, t, s, teacher, ids: s * (feature(i, teacher.image) + feature(t, teacher.text)),
    "interactive": lambda i, t, s, teacher, ids: interactive(i, t, teacher, s, ids),
    "gradient": lambda i, t, s, teacher, ids: gradient(i, t, teacher, s),
    "soft_sigmoid": lambda i, t, s, teacher, ids: soft_sigmoid(s * i @ t.T, 9 * teacher.image @ teacher.text.T),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name: str) -> None:
    image, text = tensor(IMAGE).requires_grad_(), tensor(TEXT).requires_grad_()
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda i, t, s: LOSSES[name](i, t, s, SAME, tensor(GROUPS)), (image, text, scale))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_do_not_care_for_the_order_of_a_batch(name: str) -> None:
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    turned = TeacherEmbeddings(SAME.image[order], SAME.text[order], SAME.scale)
    plain = LOSSES[name](tensor(IMAGE), tensor(TEXT), SCALE, SAME, tensor(GROUPS))
    other = LOSSES[name](tensor(IMAGE)[order], tensor(TEXT)[order], SCALE, turned, tensor(GROUPS)[order])
    assert float(other) == pytest.approx(float(plain), rel=1e-9)


RANK = """
import sys
import numpy as np, torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from distill.distributed import alone, everyone, joined_processes, rank, size
from distill.losses import *

torch.manual_seed(0)
whole = 8
x, y = torch.randn(whole, 5).double(), torch.randn(whole, 7).double()
unit = lambda v: torch.nn.functional.normalize(v, dim=-1)
rows = lambda width: unit(torch.randn(whole, width).double())
teachers = [TeacherEmbeddings(rows(width), rows(width), 20.0) for width in (6, 4)]
groups = torch.tensor([0, 1, 2, 1, 3, 4, 0, 5])

class Student(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.text = torch.nn.Linear(5, 6).double(), torch.nn.Linear(7, 6).double()
        self.scale = torch.nn.Parameter(torch.tensor(1.5).double())
    def forward(self, x, y):
        return unit(self.image(x)), unit(self.text(y)), self.scale.exp()

def loss_of(name, model, mine, gather):
    image, text, scale = model(x[mine], y[mine])
    first, second = (TeacherEmbeddings(t.image[mine], t.text[mine], t.scale) for t in teachers)
    own = groups[mine]
    return {
        "info_nce": lambda: info_nce(image, text, scale, own, gather=gather),
        "siglip": lambda: siglip(image, text, scale, -scale, own, gather=gather, chunk=3),
        "ensemble": lambda: ensemble(image, text, scale, [first, second], gather),
        "feature": lambda: scale * (feature(image, first.image) + feature(text, first.text)),
        "interactive": lambda: interactive(image, text, first, scale, own, gather),
        "gradient": lambda: gradient(image, text, first, scale, gather),
    }[name]()

with joined_processes():
    ranks = size()
    mine = slice(rank() * whole // ranks, (rank() + 1) * whole // ranks)
    for name in sys.argv[1].split(","):
        torch.manual_seed(1)
        model = Student()
        wrapped = DistributedDataParallel(model) if ranks > 1 else model
        loss = loss_of(name, wrapped, mine, everyone if ranks > 1 else alone)
        loss.backward()
        value = loss.detach().clone()
        if ranks > 1:
            distributed.all_reduce(value)
        grads = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        if rank() == 0:
            print(name, repr(float(value) / ranks), grads.numpy().tobytes().hex())
"""
DISTRIBUTED = "info_nce,siglip,ensemble,feature,interactive,gradient"


def test_two_ranks_are_one_with_the_whole_batch() -> None:
    """The same loss and the same gradient of every parameter, with gloo."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(ranks: int) -> dict[str, tuple[float, np.ndarray]]:
        processes = []
        for number in range(ranks):
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            if ranks > 1:
                environment |= {"RANK": str(number), "WORLD_SIZE": str(ranks)}
                environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            command = [sys.executable, "-c", RANK, DISTRIBUTED]
            processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        said = [process.communicate(timeout=240)[0] for process in processes]
        assert not any(process.returncode for process in processes)
        rows = [line.split() for line in said[0].splitlines() if line.split()[:1] and line.split()[0] in DISTRIBUTED]
        return {name: (float(value), np.frombuffer(bytes.fromhex(grads))) for name, value, grads in rows}

    one, two = run(1), run(2)
    assert set(one) == set(two) == set(DISTRIBUTED.split(","))
    for name, (value, grads) in one.items():
        assert two[name][0] == pytest.approx(value, rel=1e-9), name
        assert np.abs(grads).max() > 1e-6, name
        np.testing.assert_allclose(two[name][1], grads, rtol=1e-6, atol=1e-10, err_msg=name)
