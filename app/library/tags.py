"""Labels for photos, from stored vectors alone: a new label set needs no photo to be opened again."""

import hashlib
from typing import TYPE_CHECKING

from app.library.store import Rows, Store

if TYPE_CHECKING:
    from mobileclip.model import Model


def label_fingerprint(model: "Model") -> str:
    """A hex text that changes whenever the same vectors could get other tags."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (model.fingerprint.encode(), model.labels.dumps().encode(), model.label_vectors.tobytes()):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def decide(model: "Model", vectors: Rows) -> list[list[tuple[str, float]]]:
    """Decide each label on its own for unit rows (n, d): n lists of (label, score), best first."""
    cosines = vectors @ model.label_vectors.T
    return [[(label.name, float(score)) for label, score in model.labels.decide(row)] for row in cosines]


def refresh(store: Store, model: "Model") -> int:
    """Bring all tags up to the model's label set; returns how many contents were decided anew."""
    model_id = store.model_id(model.fingerprint)
    if model_id is None:
        return 0
    tagged_by = label_fingerprint(model)
    decided = 0
    for ids, vectors in store.vector_blocks(model_id, model.dim, unless_tagged_by=tagged_by):
        with store.transaction():
            for content_id, tags in zip(ids.tolist(), decide(model, vectors), strict=True):
                store.put_tags(content_id, tags, tagged_by)
        decided += len(ids)
    return decided
