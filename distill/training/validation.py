"""Select the best student of a run by retrieval on held-out captions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from distill.config import Recipe
from distill.evaluate.run import evaluate_captions
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
        """Return the student's mean R@10 of both directions, 0 to 1; save the student if this is above `best`.

        Raises:
            DataError: the captions can't be read.
        """
        plan = self.recipe.validate
        if plan is None:
            raise ConfigError(f"recipe {self.recipe.name}: no [validate]")
        splits = self.data / plan.splits if plan.splits else None
        encoder = TorchModel(student, self.tokenizer)
        result = evaluate_captions(encoder, self.data / plan.captions, splits, plan.split or None)
        score = float(result["text_to_photo"]["R@10"] + result["photo_to_text"]["R@10"]) / 2
        if score > best:
            folder = self.out / "best"
            save_checkpoint(student, self.merges, folder, self.recipe.about)
            text = json.dumps({"step": step, "captions": plan.captions, "split": plan.split, **result}, indent=1)
            write_whole(folder / "evaluation.json", lambda stream: stream.write(text.encode()))
        return score
