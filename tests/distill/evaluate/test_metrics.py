"""Rates match plain counting."""

import tracemalloc

import numpy as np
import pytest

from distill.evaluate import metrics
from distill.evaluate.limits import PROBES, measure_limits, minimal_pair
from distill.evaluate.metrics import bootstrap, classification, retrieval


def unit(random: np.random.Generator, *shape: int) -> np.ndarray:
    rows = random.normal(size=shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_retrieval_matches_a_count_over_the_ranking() -> None:
    random = np.random.default_rng(3)
    photos, texts = unit(random, 30, 12), unit(random, 90, 12)
    owner = [i % 30 for i in range(90)]
    texts = texts + 0.5 * photos[owner]
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    got = retrieval(photos, texts, owner)
    similarity = texts @ photos.T
    for k in (1, 5, 10):
        to_photo = np.mean([owner[i] in np.argsort(-row)[:k] for i, row in enumerate(similarity)])
        to_text = np.mean([any(owner[t] == p for t in np.argsort(-col)[:k]) for p, col in enumerate(similarity.T)])
        assert got["text_to_photo"][f"R@{k}"] == pytest.approx(to_photo)
        assert got["photo_to_text"][f"R@{k}"] == pytest.approx(to_text)


def test_retrieval_agrees_with_sklearns_top_k() -> None:
    from sklearn.metrics import top_k_accuracy_score

    random = np.random.default_rng(4)
    photos, texts = unit(random, 20, 6), unit(random, 20, 6)
    got = retrieval(photos, texts, list(range(20)))["text_to_photo"]["R@5"]
    assert got == pytest.approx(top_k_accuracy_score(range(20), texts @ photos.T, k=5))


def test_a_constant_model_scores_zero() -> None:
    same = np.tile(np.array([[1.0, 0.0]], np.float32), (20, 1))
    assert retrieval(same, same, list(range(20)))["text_to_photo"] == {"R@1": 0.0, "R@5": 0.0, "R@10": 0.0}


def test_a_model_that_returns_nan_scores_zero() -> None:
    broken = np.full((20, 2), np.nan, np.float32)
    assert not any(retrieval(broken, broken, list(range(20)))["text_to_photo"].values())
    assert classification(broken, broken[:7], [[i % 7] for i in range(20)])["top5"] == 0


def test_a_photo_without_a_text_is_never_found_by_one() -> None:
    photos = np.eye(3, dtype=np.float32)
    got = retrieval(photos, photos[[0, 2]], [0, 2])
    assert got["text_to_photo"]["R@1"] == 1 and set(got["photo_to_text"].values()) == {2 / 3}


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(11)
    photos, texts, owner = unit(random, 40, 8), unit(random, 97, 8), random.integers(0, 40, 97).tolist()
    expected = retrieval(photos, texts, owner)
    monkeypatch.setattr(metrics, "CELLS", 300)  # rows of three and seven
    assert retrieval(photos, texts, owner) == expected


def test_memory_does_not_grow_with_the_number_of_photos_and_texts() -> None:
    """All similarities at once would be 640 MB."""
    random = np.random.default_rng(12)
    photos, texts = unit(random, 8_000, 4), unit(random, 20_000, 4)
    tracemalloc.start()
    try:
        metrics.ranks(texts, photos, np.arange(20_000), np.arange(20_000) % 8_000)
        metrics.ranks(photos, texts, np.arange(20_000) % 8_000, np.arange(20_000))
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def test_classification_with_several_right_classes() -> None:
    classes = np.eye(6, dtype=np.float32)
    photos = np.eye(6, dtype=np.float32)[[0, 1, 1, 5]]
    got = classification(photos, classes, [[0], [1], [2, 1], [4]])
    assert (got["top1"], got["top5"]) == (0.75, 0.75)
    assert got["mean_per_class"] == pytest.approx((1 + 1 + 1 + 0) / 4)
    assert all(low <= got[name] <= high for name, (low, high) in got["intervals"].items())


def test_intervals_match_the_normal_approximation() -> None:
    """They also shrink with the square root of the sample size."""
    widths = []
    for n in (400, 1600):
        right = np.arange(n) % 10 < 3
        low, high = bootstrap(n, lambda drawn, right=right: float(right[drawn].mean()))
        spread = 1.96 * np.sqrt(0.3 * 0.7 / n)
        assert (low, high) == (pytest.approx(0.3 - spread, abs=0.006), pytest.approx(0.3 + spread, abs=0.006))
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.15)


def test_captions_of_one_photo_are_resampled_together() -> None:
    """Five captions per photo, all right or all wrong, carry no more information than one."""
    photos = np.eye(100, dtype=np.float32)
    texts = np.repeat(photos[[i if i % 2 else (i + 50) % 100 for i in range(100)]], 5, axis=0)
    low, high = retrieval(photos, texts, np.repeat(np.arange(100), 5).tolist())["intervals"]["text_to_photo"]["R@1"]
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 100), rel=0.1)


@pytest.mark.parametrize(
    ("probe", "caption", "wrong"),
    [
        ("number", "Two dogs run .", "three dogs run ."),
        ("position", "A man in front of a wall", "A man behind a wall"),
        ("color", "a redhead in a red hat", "a redhead in a blue hat"),
        ("person", "a woman and a man", "a man and a man"),
        ("person", "a human", None),
    ],
)
def test_a_minimal_pair_changes_one_whole_word(probe: str, caption: str, wrong: str | None) -> None:
    assert minimal_pair(caption, PROBES[probe]) == wrong


def test_limits_count_photos_that_prefer_their_own_caption() -> None:
    """An encoder that tells two from three, but not colors."""

    class Counting:
        def encode_texts(self, texts: list[str]) -> np.ndarray:
            return np.array([[1.0, 0.0] if "two" in text else [0.0, 1.0] for text in texts], np.float32)

    captions = ["two red cats", "three red dogs", "a cat"]
    texts = Counting().encode_texts(captions)
    result = measure_limits(Counting(), texts, texts, captions, [0, 1, 2])
    assert result == {
        "number": {"n": 2, "accuracy": 1.0, "interval": [1.0, 1.0]},
        "color": {"n": 2, "accuracy": 0.0, "interval": [0.0, 0.0]},
    }


def test_the_interval_of_a_limit_draws_photos_not_captions() -> None:
    """Twenty captions per photo, all right or all wrong, carry no more information than one."""

    class Blind:
        def encode_texts(self, texts: list[str]) -> np.ndarray:
            return np.tile(np.array([[0.6, 0.8]], np.float32), (len(texts), 1))

    photos = np.array([[1.0, 0.0], [0.0, 1.0]] * 50, np.float32)
    owner = [i // 20 for i in range(2000)]
    texts = np.tile(np.array([[1.0, 0.0]], np.float32), (2000, 1))
    found = measure_limits(Blind(), photos, texts, ["a red hat"] * 2000, owner)["color"]
    assert found["accuracy"] == 0.5
    assert found["interval"][1] - found["interval"][0] == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 100), rel=0.1)


def test_a_right_target_without_a_vector_does_not_hide_another() -> None:
    targets = np.eye(4, dtype=np.float32)
    targets[3] = np.nan
    for right in ([0, 3], [3, 0]):
        found = metrics.ranks(targets[:1], targets, np.zeros(2, np.intp), np.array(right))
        assert found.tolist() == [1]
