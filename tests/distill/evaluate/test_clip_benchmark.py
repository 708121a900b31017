"""Our rates match CLIP_benchmark and open_clip, whose published definitions are reimplemented here.

CLIP_benchmark, `metrics/zeroshot_retrieval.py`: a query is a hit where at least one of its positives is among the k
highest scores. `metrics/zeroshot_classification.py`: accuracy of the k highest logits; scikit-learn's balanced
accuracy; for several labels the mean of precisions at each positive's place in the sorted scores.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from distill.evaluate.metrics import classification, retrieval
from distill.evaluate.run import class_vectors
from distill.evaluate.tagging import Ranking, tagging


def average_precision(cosines: np.ndarray, right: np.ndarray) -> float:
    ranking = Ranking(np.asarray(cosines)[:, None], np.asarray(right)[:, None].astype(np.int8))
    return ranking.mean_average_precision(np.ones(len(right), np.int64))


def unit(random: np.random.Generator, *shape: int) -> np.ndarray:
    rows = random.normal(size=shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def benchmark_recall(scores: torch.Tensor, positives: torch.Tensor, k: int) -> float:
    """Share of rows with at least one positive among their k highest scores."""
    found = torch.zeros_like(positives)
    found.scatter_(1, scores.topk(k, dim=1).indices, True)
    return (found & positives).any(dim=1).float().mean().item()


def benchmark_accuracy(logits: torch.Tensor, target: torch.Tensor, k: int) -> float:
    return (logits.topk(k, dim=1).indices == target[:, None]).any(dim=1).float().mean().item()


def benchmark_average_precision(scores: torch.Tensor, target: torch.Tensor) -> list[float]:
    found = []
    for column, shown in zip(scores.T, target.T, strict=True):
        sorted_truth = shown[column.argsort(descending=True)]
        precision = sorted_truth.cumsum(0) / torch.arange(1, len(column) + 1)
        found.append(float((precision * sorted_truth).sum() / max(int(shown.sum()), 1)))
    return found


def test_recall_both_ways_with_different_numbers_of_captions() -> None:
    random = np.random.default_rng(0)
    photos = unit(random, 40, 16)
    owner = np.concatenate([np.arange(40), random.integers(0, 40, 130)])
    texts = photos[owner] + 2 * unit(random, 170, 16)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    got = retrieval(photos, texts, owner.tolist())
    scores = torch.from_numpy(texts @ photos.T)
    positives = torch.zeros_like(scores, dtype=torch.bool)
    positives[torch.arange(170), torch.from_numpy(owner)] = True
    for k in (1, 5, 10):
        assert got["text_to_photo"][f"R@{k}"] == pytest.approx(benchmark_recall(scores, positives, k), abs=1e-6)
        assert got["photo_to_text"][f"R@{k}"] == pytest.approx(benchmark_recall(scores.T, positives.T, k), abs=1e-6)
    assert 0.2 < got["text_to_photo"]["R@1"] < 0.95 and 0.2 < got["photo_to_text"]["R@1"] < 0.95


def test_a_hit_is_any_caption_and_not_their_share() -> None:
    """The photo's two captions rank first and last: its recall is 1, not 1/2."""
    photos = np.eye(2, dtype=np.float32)
    texts = np.array([[1, 0], [-1, 0], [0.0, 1]], np.float32)
    assert retrieval(photos, texts, [0, 0, 1])["photo_to_text"]["R@1"] == 1
    assert retrieval(photos, texts, [0, 0, 1])["text_to_photo"]["R@1"] == pytest.approx(2 / 3)


def test_accuracies_and_mean_recall_of_unequal_classes() -> None:
    random = np.random.default_rng(1)
    classes = unit(random, 9, 12)
    target = random.choice(8, 300, p=np.array([8, 7, 6, 5, 4, 3, 2, 1]) / 36)  # the ninth class has no photo
    photos = classes[target] + 1.3 * unit(random, 300, 12)
    logits = torch.from_numpy(photos @ classes.T)
    got = classification(photos, classes, [[int(one)] for one in target])
    assert got["top1"] == pytest.approx(benchmark_accuracy(logits, torch.from_numpy(target), 1), abs=1e-6)
    assert got["top5"] == pytest.approx(benchmark_accuracy(logits, torch.from_numpy(target), 5), abs=1e-6)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert got["mean_per_class"] == pytest.approx(balanced_accuracy_score(target, logits.argmax(dim=1)))
    assert 0.2 < got["top1"] < got["top5"] < 1 and abs(got["top1"] - got["mean_per_class"]) > 0.005


def test_mean_average_precision_of_many_labels() -> None:
    random = np.random.default_rng(2)
    cosines = random.normal(size=(120, 7)).astype(np.float32)
    truth = (random.random((120, 7)) < np.linspace(0.02, 0.6, 7)).astype(np.int8)
    truth[0] = 1
    each = benchmark_average_precision(torch.from_numpy(cosines), torch.from_numpy(truth))
    assert tagging(cosines, truth)["map"] == pytest.approx(np.mean(each), abs=1e-6)
    assert [average_precision(cosines[:, i], truth[:, i] == 1) for i in range(7)] == pytest.approx(each, abs=1e-6)


def test_where_we_differ_labels_without_a_photo_are_left_out() -> None:
    random = np.random.default_rng(3)
    cosines, truth = random.normal(size=(30, 2)).astype(np.float32), np.zeros((30, 2), np.int8)
    truth[:5, 0] = 1
    theirs = benchmark_average_precision(torch.from_numpy(cosines), torch.from_numpy(truth))
    ours = tagging(cosines, truth)
    assert theirs[1] == 0 and ours["labels"] == 1
    assert ours["map"] == pytest.approx(2 * np.mean(theirs))


def test_where_we_differ_ties_count_against_the_model() -> None:
    """Everything equal: there the file's order decides, here nothing is found, and precision is the label's share."""
    same, truth = np.ones((20, 2), np.float32) / np.sqrt(2), (np.arange(20) < 5)
    assert classification(same, same[:7], [[0]] * 20)["top1"] == 0
    assert retrieval(same, same, list(range(20)))["photo_to_text"]["R@10"] == 0
    assert average_precision(same[:, 0], truth) == 0.25 == average_precision_score(truth, same[:, 0])


def test_where_we_differ_four_classes_have_a_top_five() -> None:
    assert classification(np.eye(4, dtype=np.float32)[[1]], np.eye(4, dtype=np.float32), [[3]])["top5"] == 1


def test_average_precision_is_scikit_learns_with_ties_too() -> None:
    random = np.random.default_rng(5)
    for values in (50, 6, 2):
        cosines, right = random.integers(0, values, 200).astype(np.float32), random.random(200) < 0.2
        assert average_precision(cosines, right) == pytest.approx(average_precision_score(right, cosines))


TEMPLATES = ("a photo of {}.", "a bright photo of a {}.", "{}", "two pictures of the {}")
CLASSES = ["tabby cat", "dog", "ice hockey"]


def test_class_vectors_are_open_clips(tmp_path: Path) -> None:
    """The same small text tower behind open_clip's own `build_zero_shot_classifier` and behind ours."""
    import open_clip

    torch.manual_seed(0)
    vision = {"layers": 1, "width": 32, "head_width": 16, "image_size": 32, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    model = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text).eval()
    tokenizer = open_clip.SimpleTokenizer()

    class Encoder:
        def encode_texts(self, texts: list[str]) -> np.ndarray:
            with torch.inference_mode():
                return model.encode_text(tokenizer(texts), normalize=True).numpy()

    formats = [lambda name, template=template: template.replace("{}", name) for template in TEMPLATES]
    theirs = open_clip.build_zero_shot_classifier(model, tokenizer, CLASSES, formats, num_classes_per_batch=2)
    ours = class_vectors(Encoder(), CLASSES, TEMPLATES)
    np.testing.assert_allclose(ours, theirs.T.numpy(), atol=1e-6)
    assert abs(ours - class_vectors(Encoder(), CLASSES, TEMPLATES[:1])).max() > 1e-3
