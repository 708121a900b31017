"""Select the best student of a run on held-out photos."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.config import Recipe
from distill.evaluate.run import evaluate_captions, evaluate_labels
from distill.files import write_whole
from mobileclip.checkpoints import save_checkpoint
from mobileclip.errors import ConfigError
from mobileclip.tokenizer import Tokenizer
from mobileclip.torch_model import TorchModel
from mobileclip.towers import CLIP


@dataclass(frozen=True)
class Validator:
    """Evaluates students during a run and keeps the best in `best/`, with its `evaluation.json`.

    Attributes:
        recipe: a recipe with a `validate` table.
        tokenizer: the student's.
        merges: the bytes of its merges file.
        data: the data folder.
        out: the run's folder.
    """

    recipe: Recipe
    tokenizer: Tokenizer
    merges: bytes
    data: Path
    out: Path

    def __call__(self, student: CLIP, step: int, best: float) -> float:
        """Return the student's score, 0 to 1, see `Validation`; save the student if this is above `best`.

        Raises:
            DataError: the captions or labels can't be read.
        """
        plan = self.recipe.validate
        if plan is None:
            raise ConfigError(f"recipe {self.recipe.name}: no [validate]")
        splits = self.data / plan.splits if plan.splits else None
        encoder = TorchModel(student, self.tokenizer)
        result: dict[str, Any] = {}
        scores = []
        if plan.captions:
            found = evaluate_captions(encoder, self.data / plan.captions, splits, plan.split or None)
            scores.append((found["text_to_photo"]["R@10"] + found["photo_to_text"]["R@10"]) / 2)
            result |= {"captions": plan.captions, **found}
        if plan.labels:
            found = evaluate_labels(encoder, self.data / plan.labels, splits, plan.split or None)
            scores.append(found["top1"])
            result |= {"labels": plan.labels, **found}
        score = float(sum(scores) / len(scores))
        if score > best:
            folder = self.out / "best"
            save_checkpoint(student, self.merges, folder, self.recipe.about)
            text = json.dumps({"step": step, "split": plan.split, **result}, indent=1)
            write_whole(folder / "evaluation.json", lambda stream: stream.write(text.encode()))
        return score
