"""Students that start from the weights of another."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from distill.data.corpus import Corpus
from distill.task import TeacherBank
from mobileclip.errors import PhotoError
from mobileclip.photos import open_photo
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import CLIP

PHOTOS, TEXTS, BATCH = 1024, 4096, 64


@torch.inference_mode()
def turn_to_teacher(model: CLIP, tokenizer: Tokenizer, corpus: Corpus, bank: TeacherBank, seed: int) -> float:
    """Rotate a student's space to lie on its teacher's, as nearly as it can.

    Which direction means what is an accident of training: a student of one teacher knows nothing of the next one's
    axes, although both may agree on who is near whom. The rotation that brings their vectors together (orthogonal
    Procrustes, Schönemann 1966) goes into both projections and changes none of the student's own similarities.

    Args:
        model: the student, with vectors as long as the teacher's; changed in place.
        tokenizer: the student's.
        corpus: photos and texts, of which some are drawn.
        bank: the teacher's vectors of all of them.
        seed: of the draw.

    Returns:
        The mean cosine of the student's and the teacher's vectors afterwards.
    """
    random = np.random.default_rng(seed)
    model.eval()
    texts = random.choice(len(corpus.texts), min(TEXTS, len(corpus.texts)), replace=False)
    tokens = torch.from_numpy(tokenizer([corpus.texts[i] for i in texts]))
    mine = [torch.cat([model.encode_text(part) for part in tokens.split(BATCH)])]
    photos, vectors = _photo_vectors(model, corpus, random)
    mine.append(vectors)
    theirs = torch.cat([bank.texts[texts], bank.photos[photos]])
    student = torch.cat(mine)
    # Few photos count as much as many texts.
    weight = torch.cat([torch.full((len(texts), 1), 1 / len(texts)), torch.full((len(photos), 1), 1 / len(photos))])
    left, _, right = torch.linalg.svd((student * weight).T @ theirs)
    turn = left @ right
    for projection in (model.image.projection, model.text.projection):
        projection.weight.copy_(turn.T @ projection.weight)
        if projection.bias is not None:
            projection.bias.copy_(projection.bias @ turn)
    return float((student @ turn * theirs).sum(dim=1).mean())


def _photo_vectors(model: CLIP, corpus: Corpus, random: np.random.Generator) -> tuple[list[int], Tensor]:
    """Encode some photos; those that cannot be read are left out."""
    recipe, read, rows, pixels = model.config.pixels, [], [], []
    drawn = random.choice(len(corpus.samples), min(PHOTOS, len(corpus.samples)), replace=False)
    for number in drawn.tolist():
        try:
            pixels.append(torch.from_numpy(recipe(open_photo(corpus.samples[number].path, min_side=2 * recipe.size))))
        except PhotoError:
            continue
        read.append(number)
        if len(pixels) == BATCH:
            rows.append(model.encode_image(torch.stack(pixels)))
            pixels = []
    if pixels:
        rows.append(model.encode_image(torch.stack(pixels)))
    return read, torch.cat(rows)
