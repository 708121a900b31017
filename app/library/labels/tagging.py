"""Give labels to photos from stored vectors alone: a new label or a correction opens no photo again."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from app.library.labels.rules import Rules, rules_of
from app.library.store import contents, photos, tags, vectors
from app.library.store.connection import Store
from app.library.store.corrections import corrected_contents
from app.library.store.matrix import Matrix, load_matrix
from app.library.store.tags import Tag
from mobileclip.zeroshot import LabelSet, telling

if TYPE_CHECKING:
    from mobileclip.model import Model

# A probability is shown with two digits.
_SCORE_STEP = 0.004


def label_fingerprint(model: "Model") -> str:
    """A hex text that changes whenever the same vectors could get other tags by the bundle's own rules."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (model.fingerprint.encode(), model.labels.dumps().encode(), model.label_vectors.tobytes()):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def refresh(store: Store, model: "Model", *, since: Rules | None = None, matrix: Matrix | None = None) -> int:
    """Bring all tags up to date with the label set, the custom labels and the corrections.

    Args:
        store: the open index.
        model: whose vectors decide.
        since: rules by which photos may have been tagged meanwhile; what has changed since then is decided again.
        matrix: the model's vectors, if they are loaded.

    Returns:
        How many contents had all of their labels decided again.
    """
    model_id = vectors.id_of_model(store, model.fingerprint)
    if model_id is None:
        return 0
    rules = rules_of(store, model, matrix)
    tagged_by = label_fingerprint(model)
    decided = 0
    if contents.any_not_tagged_by(store, tagged_by):
        for ids, rows in vectors.vector_blocks(store, model_id, model.dim, unless_tagged_by=tagged_by):
            _replace(store, ids.tolist(), rules.decide(rows), tagged_by)
            decided += len(ids)
    stale = _differing(tags.rules_in_force(store), rules.special)
    if since is not None:
        stale |= _differing(since.special, rules.special)
    if stale:
        _decide_again(store, model, rules, stale, matrix)
    return decided


def decide_photo(store: Store, model: "Model", photo_id: int) -> None:
    """Decide all labels of one photo again, by the rules that hold now."""
    found = vectors.vector_of_photo(store, model.fingerprint, photo_id)
    if found is not None:
        content_id, row = found
        (given,) = rules_of(store, model).decide(row)
        with store.transaction():
            tags.put_tags(store, content_id, given, label_fingerprint(model))


def tagged_photos(
    store: Store, model_id: int, labels: LabelSet, folders: Sequence[str] = ()
) -> Iterator[tuple[str, list[Tag]]]:
    """Yield (path, tags) of each photo that has a vector of the model, by path; see `paths_with_vector`.

    A person's own tags come first, then those that say most about a photo, see `mobileclip.zeroshot.telling`.
    """

    def order(tag: Tag) -> tuple[bool, float, str]:
        says = telling(labels[tag.label], tag.score) if tag.label in labels else tag.score
        return tag.source != "you", -says, tag.label

    for path, content_id in photos.paths_with_vector(store, model_id, folders):
        yield path, sorted(tags.tags_of_content(store, content_id), key=order)


def _differing(before: Mapping[str, str], now: Mapping[str, str]) -> set[str]:
    return {name for name in {*before, *now} if before.get(name) != now.get(name)}


def _replace(store: Store, ids: list[int], given: list[list[tuple[str, float]]], tagged_by: str) -> None:
    rows = [(content_id, label, score) for content_id, some in zip(ids, given, strict=True) for label, score in some]
    with store.transaction():
        corrected = corrected_contents(store)
        tags.replace_tags(store, ids, [row for row in rows if row[:2] not in corrected], tagged_by)


def _decide_again(store: Store, model: "Model", rules: Rules, names: set[str], matrix: Matrix | None) -> None:
    """Decide a few labels again for all photos, and remember by which rule."""
    matrix = load_matrix(store, model.fingerprint) if matrix is None else matrix
    names = names | {label.name for name in names if name in rules.labels for label in rules.labels.related(name)}
    with store.transaction():
        # The matrix has no contents without a photo; if one gets a photo again, all of its labels are decided again.
        contents.decide_orphans_again(store)
        for name in sorted(names):
            given = _given(rules, name, matrix)
            for content_id, _ in corrected_contents(store, name):
                given.pop(content_id, None)
            before = tags.scores_by_model(store, name)
            # Most tags of a label stay when its threshold moves; writing only what changes makes a correction quick.
            tags.remove_tag(store, name, before.keys() - given.keys())
            changed = [
                (content_id, score)
                for content_id, score in given.items()
                if abs(before.get(content_id, -1.0) - score) > _SCORE_STEP
            ]
            tags.set_scores(store, name, changed)
            tags.set_rule(store, name, rules.special.get(name))


def _given(rules: Rules, name: str, matrix: Matrix) -> dict[int, float]:
    """Content id → probability of one label, for all that it is given to."""
    if name not in rules.labels:
        return {}
    given, scores = rules.decide_one(name, matrix.rows)
    return dict(zip(matrix.ids[given].tolist(), scores[given].tolist(), strict=True))
