"""Losses that compare a student with teachers. The teachers' tensors are constants without gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.distributed import Gather, alone, everyone, rank
from distill.losses.contrastive import info_nce, positives
from distill.losses.registry import LossInputs, Need, TeacherEmbeddings, average, register


def affinity(student: Tensor, teacher: Tensor) -> Tensor:
    """Affinity mimicking (TinyCLIP, Wu et al. 2023, section 3.1): cross-entropy to the teacher's similarities.

    Args:
        student: scaled logits (n, m).
        teacher: scaled logits (n, m), constant.

    Returns:
        A scalar: the KL divergence averaged over rows, which is 0 for a perfect student.
    """
    target = torch.log_softmax(teacher, dim=-1)
    return (target.exp() * (target - torch.log_softmax(student, dim=-1))).sum(dim=-1).mean()


def ensemble(
    image: Tensor, text: Tensor, scale: Tensor, teachers: Sequence[TeacherEmbeddings], gather: Gather = alone
) -> Tensor:
    """Contrastive distillation from several teachers (MobileCLIP, Vasu et al. 2024, section 3.3, equation 3).

    The teachers' probabilities are averaged. Those over photos have their own softmax; they aren't the transpose of
    those over texts.

    Args:
        image: the student's unit vectors (n, d).
        text: the student's unit vectors (n, d).
        scale: the student's logit scale, not its logarithm.
        teachers: one or more, each with a constant scale and any dimension.
        gather: gathers the rows of all processes.

    Returns:
        A scalar: the KL divergence, averaged over rows and both directions.
    """
    losses = []
    to_text = [(t.scale * t.image @ gather(t.text).T).softmax(dim=-1) for t in teachers]
    to_image = [(t.scale * t.text @ gather(t.image).T).softmax(dim=-1) for t in teachers]
    for own, others, columns in ((image, gather(text), to_text), (text, gather(image), to_image)):
        logits = torch.log_softmax(scale * own @ others.T, dim=-1)
        target = torch.stack(columns).mean(dim=0)
        losses.append(F.kl_div(logits, target, reduction="batchmean"))
    return (losses[0] + losses[1]) / 2


def feature(student: Tensor, teacher: Tensor) -> Tensor:
    """Feature distillation (CLIP-KD, Yang et al. 2024, section 3.2) between unit vectors (n, d).

    The masked variant (MFD) is the same loss with the student's embeddings of photos with masked patches.

    Returns:
        A scalar: the squared distance (2 − 2·cosine), averaged over pairs. CLIP-KD also averages it over dimensions.
    """
    return (student - teacher).square().sum(dim=-1).mean()


def interactive(
    image: Tensor, text: Tensor, teacher: TeacherEmbeddings, scale: Tensor, groups: Tensor, gather: Gather = alone
) -> Tensor:
    """Interactive contrastive learning (CLIP-KD, section 3.2): the student's rows, the teacher's columns.

    Args:
        image: the student's unit vectors (n, d).
        text: the student's unit vectors (n, d).
        teacher: vectors of the same dimension d.
        scale: the logit scale, not its logarithm (which CLIP-KD's code uses by mistake).
        groups: ids (n,) of what the photos show.
        gather: gathers the rows of all processes.
    """
    to_text = _one_way(image, gather(teacher.text), scale, groups, gather)
    return (to_text + _one_way(text, gather(teacher.image), scale, groups, gather)) / 2


def _one_way(rows: Tensor, columns: Tensor, scale: Tensor, groups: Tensor, gather: Gather) -> Tensor:
    targets = positives(groups, gather(groups)).to(rows.dtype)
    return -(targets * torch.log_softmax(scale * rows @ columns.T, dim=-1)).sum(dim=-1).mean()


def gradient(image: Tensor, text: Tensor, teacher: TeacherEmbeddings, scale: Tensor, gather: Gather = alone) -> Tensor:
    """Gradient distillation (CLIP-KD, section 3.2): match the gradients of InfoNCE at the teacher's embeddings.

    Args:
        image: the student's unit vectors (n, d).
        text: the student's unit vectors (n, d).
        teacher: vectors of the same dimension d.
        scale: the student's logit scale, not its logarithm.
        gather: gathers the rows of all processes.

    Returns:
        A scalar: the squared distance between the gradients of a pair, averaged over pairs. They are gradients of the
        loss times the size of the batch, so the value doesn't depend on that size.
    """
    own = info_nce_gradients(image, text, scale, gather)
    with torch.no_grad():
        wanted = info_nce_gradients(teacher.image, teacher.text, torch.as_tensor(teacher.scale), gather)
    return sum(((o - w).square().sum(dim=-1).mean() for o, w in zip(own, wanted, strict=True)), image.new_zeros(()))


def info_nce_gradients(image: Tensor, text: Tensor, scale: Tensor, gather: Gather = alone) -> tuple[Tensor, Tensor]:
    """Return the gradients of n · InfoNCE with respect to `image` and `text`, both (n, d), in closed form.

    All pairs count as different.
    """
    images, texts = gather(image), gather(text)
    logits = scale * images @ texts.T
    error = (logits.softmax(dim=1) + logits.softmax(dim=0)) / 2 - torch.eye(len(logits)).to(logits)
    own = _own_rows(len(images), len(image))
    return scale * error[own] @ texts, scale * error.T[own] @ images


def _own_rows(total: int, mine: int) -> slice:
    start = rank() * mine if total > mine else 0
    return slice(start, start + mine)


def augmented(
    image: Tensor,
    text: Tensor,
    teacher: TeacherEmbeddings,
    fuse: Sequence[nn.Module],
    scale: Tensor,
    groups: Tensor,
    gather: Gather = alone,
) -> Tensor:
    """Augmented feature distillation (CLIP-KD, section 3.2): InfoNCE of student and teacher fused.

    Args:
        image: the student's unit vectors (n, d).
        text: the student's unit vectors (n, d).
        teacher: vectors (n, e).
        fuse: for photos and for texts, a module that maps (n, d + e) to (n, k). It learns with the student.
        scale: the logit scale, not its logarithm.
        groups: ids (n,) of what the photos show.
        gather: gathers the rows of all processes.
    """
    fused_image = F.normalize(fuse[0](torch.cat([image, teacher.image], dim=1)), dim=-1)
    fused_text = F.normalize(fuse[1](torch.cat([text, teacher.text], dim=1)), dim=-1)
    return info_nce(fused_image, fused_text, scale, groups, gather=gather)


def soft_sigmoid(student: Tensor, teacher: Tensor) -> Tensor:
    """Distill into a SigLIP student: binary cross-entropy with the teacher's probabilities as targets.

    Args:
        student: logits (n, m), scale and bias included.
        teacher: logits (n, m), constant.

    Returns:
        A scalar: the sum over columns, averaged over rows, minus its smallest possible value, so it is 0 for a perfect
        student. It differs from −log σ((2p − 1)·z), whose gradient vanishes for p = ½.
    """
    probability = teacher.sigmoid()
    loss = F.binary_cross_entropy_with_logits(student, probability, reduction="none")
    least = F.binary_cross_entropy_with_logits(teacher, probability, reduction="none")
    return (loss - least).sum(dim=-1).mean()


def relational(student: Tensor, teacher: Tensor, student_temperature: float, teacher_temperature: float) -> Tensor:
    """KL divergence between the similarities within two spaces (relational distillation, Park et al. 2019).

    The spaces may have different dimensions, because only similarities are compared.

    Args:
        student: unit vectors (n, d).
        teacher: unit vectors (n, e) of the same items, constant.
        student_temperature: divisor of the student's cosines.
        teacher_temperature: divisor of the teacher's cosines.
    """
    itself = torch.eye(len(student), dtype=torch.bool, device=student.device)
    logits = (student @ student.T / student_temperature).masked_fill(itself, -1e4)
    target = (teacher @ teacher.T / teacher_temperature).masked_fill(itself, -1e4)
    return affinity(logits, target)


def _feature_of_texts(step: LossInputs) -> Tensor:
    return average(feature(step.text, step.teachers[number].text) for number in step.matching)


@register("feature", Need.SAME_DIMENSION, weight=1.0, texts=_feature_of_texts)
def _feature(step: LossInputs) -> Tensor:
    """The distance between the student's and the teachers' embeddings."""
    teachers = [step.teachers[number] for number in step.matching]
    return average(feature(step.image, teacher.image) + feature(step.text, teacher.text) for teacher in teachers)


def _affinity_of_texts(step: LossInputs) -> Tensor:
    pairs = [(step.teachers[number], step.reference[number]) for number in step.matching]
    return average(
        affinity(teacher.scale * step.text @ side.T, teacher.scale * teacher.text @ side.T)
        for teacher, reference in pairs
        for side in (reference.image, reference.text)
    )


@register("affinity", Need.REFERENCE, weight=1.0, texts=_affinity_of_texts)
def _affinity(step: LossInputs) -> Tensor:
    """The teachers' similarities to `loss.bank` other photos and texts, or in the batch, at each teacher's logit scale.

    Comparing with other photos and texts takes one matrix product and no forward pass, so small batches learn from
    thousands of them.
    """
    image, text, terms = step.image, step.text, []
    for number, teacher in enumerate(step.teachers):
        if step.reference:
            if number not in step.matching:
                continue
            photos, texts = step.reference[number].image, step.reference[number].text
            teacher_photos, teacher_texts = photos, texts
        else:
            photos, teacher_photos = everyone(image), everyone(teacher.image)
            texts, teacher_texts = everyone(text), everyone(teacher.text)
        scale = teacher.scale
        terms.append(affinity(scale * image @ texts.T, scale * teacher.image @ teacher_texts.T))
        terms.append(affinity(scale * text @ photos.T, scale * teacher.text @ teacher_photos.T))
    return average(terms)


@register("ensemble", Need.TEACHER)
def _ensemble(step: LossInputs) -> Tensor:
    """The teachers' probabilities in the batch, averaged over teachers (MobileCLIP)."""
    return ensemble(step.image, step.paired_text, step.scale, step.paired_teachers, everyone)


@register("masked_feature", Need.SAME_DIMENSION, Need.MASKED)
def _masked_feature(step: LossInputs) -> Tensor:
    """As `feature`, from photos with masked patches; takes a second forward pass of the image tower (CLIP-KD)."""
    return average(feature(step.needed("masked"), teacher.image) for teacher in step.matching_teachers)


@register("interactive", Need.SAME_DIMENSION)
def _interactive(step: LossInputs) -> Tensor:
    """InfoNCE of the student's photos with the teachers' texts, and the other way around (CLIP-KD)."""
    return average(
        interactive(step.image, step.paired_text, teacher, step.scale, step.groups, everyone)
        for teacher in step.matching_teachers
    )


@register("gradient", Need.SAME_DIMENSION)
def _gradient(step: LossInputs) -> Tensor:
    """The gradients of InfoNCE at the teachers' embeddings (CLIP-KD)."""
    return average(
        gradient(step.image, step.paired_text, teacher, step.scale, everyone) for teacher in step.matching_teachers
    )


def _fusion_layers(dimension: int, teacher_dimensions: Sequence[int]) -> dict[str, nn.Module]:
    return {
        name: nn.ModuleList(nn.Linear(dimension + other, dimension) for other in teacher_dimensions)
        for name in ("fuse_image", "fuse_text")
    }


@register("augmented", Need.TEACHER, modules=_fusion_layers)
def _augmented(step: LossInputs) -> Tensor:
    """InfoNCE of student and teacher fused by a linear layer, which is thrown away afterwards (CLIP-KD)."""
    layers = zip(step.modules["fuse_image"].children(), step.modules["fuse_text"].children(), strict=True)
    return average(
        augmented(step.image, step.paired_text, teacher, fuse, step.scale, step.groups, everyone)
        for teacher, fuse in zip(step.paired_teachers, layers, strict=True)
    )


@register("soft_sigmoid", Need.TEACHER, Need.BIAS)
def _soft_sigmoid(step: LossInputs) -> Tensor:
    """The teachers' pairwise probabilities, for a SigLIP student; see `loss.teacher_bias`."""
    logits = step.scale * step.image @ everyone(step.text).T + step.needed("bias")
    return average(
        soft_sigmoid(logits, teacher.scale * teacher.image @ everyone(teacher.text).T + step.settings.teacher_bias)
        for teacher in step.teachers
    )


@register("posterior", Need.POSTERIOR)
def _posterior(step: LossInputs) -> Tensor:
    """The class probabilities of the first teacher, which needs `[aligned]` with `class_names`.

    It keeps what the classifier recognizes in a photo even if no caption mentions it.
    """
    logits = step.teachers[0].scale * step.image @ step.needed("classes").T
    return affinity(logits, step.needed("posterior"))
