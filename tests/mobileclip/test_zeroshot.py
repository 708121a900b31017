import math
import tomllib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobileclip.errors import BundleError
from mobileclip.zeroshot import TEMPLATES, Label, LabelSet, average_prompts, expand, telling

DOG = Label("dog", "pets", ("a dog", "a photo of a dog."), 0.25, 30.0, 40)
CAT = Label("cat", "pets", ("a cat",), 0.3, 12.5)
SUN = Label("sunset", "time of day", ("a sunset",), -0.1, 5.0, 3)
LABELS = LabelSet([DOG, CAT, SUN])


def test_the_score_at_the_threshold_is_one_half() -> None:
    np.testing.assert_allclose(LABELS.scores([0.25, 0.3, -0.1]), 0.5)


def test_scores_follow_the_logistic_curve_without_overflow() -> None:
    cosines = np.array([[0.2, 0.5, 0.0], [-1.0, 1.0, 1e9]])
    expected = [
        [
            1 / (1 + math.exp(-30 * (0.2 - 0.25))),
            1 / (1 + math.exp(-12.5 * 0.2)),
            1 / (1 + math.exp(-5 * 0.1)),
        ],
        [1 / (1 + math.exp(30 * 1.25)), 1 / (1 + math.exp(-12.5 * 0.7)), 1.0],
    ]
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_allclose(LABELS.scores(cosines), expected, atol=1e-12)


def test_each_label_is_decided_separately() -> None:
    both = LABELS.decide([0.26, 0.9, -0.5])
    assert [label.name for label, _ in both] == ["cat", "dog"]
    assert all(score >= 0.5 for _, score in both) and both[0][1] > both[1][1]
    alone = LABELS.decide([0.26, 0.0, -0.5])
    assert alone == [both[1]]  # the other scores make no difference


def test_a_cosine_at_the_threshold_gives_the_label() -> None:
    """The lowest cosine that does; the next lower number doesn't."""
    thresholds = np.array([label.threshold for label in LABELS])
    assert {label.name: score for label, score in LABELS.decide(thresholds)} == {label.name: 0.5 for label in LABELS}
    assert LABELS.decide(thresholds - 1e-9) == []


def test_a_photo_may_have_no_label() -> None:
    assert LABELS.decide([0.0, 0.0, -0.9]) == []
    assert LABELS.decide(np.full(3, np.nan)) == []
    assert LabelSet([]).decide([]) == []


def test_a_wrong_number_of_cosines_is_refused() -> None:
    for cosines in ([0.1, 0.2], 0.1, np.zeros((3, 2))):
        with pytest.raises(ValueError, match="3 labels"):
            LABELS.scores(cosines)


def test_a_set_is_a_sequence_with_names() -> None:
    assert list(LABELS) == [DOG, CAT, SUN] and len(LABELS) == 3
    assert LABELS["cat"] is CAT and "cat" in LABELS and "cow" not in LABELS
    with pytest.raises(KeyError):
        LABELS["cow"]
    with pytest.raises(ValueError, match="'cat' is defined twice"):
        LabelSet([CAT, DOG, CAT])


def test_toml_round_trip() -> None:
    text = LABELS.dumps()
    assert LabelSet.loads(text) == LABELS
    assert tomllib.loads(text)["label"][0]["prompts"] == ["a dog", "a photo of a dog."]
    assert LabelSet.loads("") == LabelSet([])


words = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(str.strip)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.builds(
        Label,
        name=words,
        group=words,
        prompts=st.lists(words, min_size=1).map(tuple),
        threshold=numbers,
        slope=numbers.filter(lambda value: value > 0),
        positives=st.integers(0, 10**9),
        least=st.floats(0.5, 1),
        search_only=st.booleans(),
        prevalence=st.floats(0, 1),
    )
)
def test_any_label_survives_toml(label: Label) -> None:
    assert list(LabelSet.loads(LabelSet([label]).dumps())) == [label]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": " "},
        {"name": 3},
        {"group": ""},
        {"prompts": ()},
        {"prompts": "a dog"},
        {"prompts": ("a dog", "")},
        {"prompts": 3},
        {"threshold": float("nan")},
        {"threshold": "0.2"},
        {"slope": 0.0},
        {"slope": -1},
        {"slope": True},
        {"positives": -1},
        {"positives": 2.0},
        {"least": 0.4},
        {"least": 1.1},
        {"search_only": 1},
        {"prevalence": -0.1},
        {"implies": "dog"},
        {"implies": (3,)},
    ],
)
def test_impossible_labels_are_refused(changes: dict[str, Any]) -> None:
    fields = {
        "name": "dog",
        "group": "pets",
        "prompts": ("a dog",),
        "threshold": 0.2,
        "slope": 9.0,
        "positives": 1,
    }
    with pytest.raises(ValueError, match="label "):
        Label(**{**fields, **changes})


@pytest.mark.parametrize(
    "text",
    [
        "label = 3",
        "[[label]]\nname = 'dog'",
        "[[label]]\nname = 'dog'\ncolor = 1",
        "nonsense",
        "label = ['dog']",
        LABELS.dumps() + LABELS.dumps(),
    ],
)
def test_bad_label_files_are_refused(text: str) -> None:
    with pytest.raises(BundleError, match=r"^labels: ") as caught:
        LabelSet.loads(text)
    assert "\n" not in str(caught.value)


def test_each_template_makes_one_prompt() -> None:
    assert len(set(TEMPLATES)) == len(TEMPLATES) and all(t.count("{}") == 1 for t in TEMPLATES)
    assert expand("dog", ("a {}.", "{}")) == ("a dog.", "dog")
    assert expand("{x}", ("a {}.",)) == ("a {x}.",)
    assert len(expand("dog")) == len(TEMPLATES)


def test_prompts_are_averaged_as_directions() -> None:
    # A long vector counts as much as a short one.
    np.testing.assert_allclose(average_prompts([[100.0, 0.0], [0.0, 1.0]]), [0.5**0.5] * 2, rtol=1e-6)
    many = np.random.default_rng(0).normal(size=(5, 3, 8))
    together = average_prompts(many)
    assert together.shape == (5, 8) and together.dtype == np.float32
    np.testing.assert_allclose(together, [average_prompts(prompts) for prompts in many], rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("vectors", [[[0.0, 0.0]], [[1.0, 0.0], [-1.0, 0.0]], [[np.nan, 1.0]], np.zeros((0, 3)), [1.0]])
def test_prompts_without_a_direction_are_refused(vectors: Any) -> None:
    with pytest.raises(ValueError):
        average_prompts(vectors)


def label(name: str, **fields: Any) -> Label:
    return Label(name, "group", (name,), 0.0, 10.0, **fields)


def test_a_label_is_given_from_its_own_probability() -> None:
    labels = LabelSet([label("a"), label("b", least=0.9), label("c", search_only=True)])
    logits = np.log([0.5 / 0.5, 0.89 / 0.11, 0.999 / 0.001]) / 10
    given, scores = labels.give(logits)
    assert given.tolist() == [True, False, False] and scores == pytest.approx([0.5, 0.89, 0.999])
    given, _ = labels.give(logits + 0.02)
    assert given.tolist() == [True, True, False]


def test_of_an_exclusive_group_only_the_most_probable_is_given() -> None:
    labels = LabelSet([label("castle"), label("dog"), label("church", least=0.8)], [("castle", "church")])
    given, _ = labels.give([[0.1, 0.3, 0.2], [0.2, 0.3, 0.1], [0.1, -0.3, 0.12], [-1, -1, -1]])
    assert given.tolist() == [[False, True, True], [True, True, False], [True, False, False], [False] * 3]
    assert labels.give([0.2, 0.0, 0.2])[0].sum() == 2, "of two as probable as each other, one is given"


def test_a_label_brings_what_it_implies_and_its_probability() -> None:
    labels = LabelSet(
        [label("animal", search_only=True), label("puppy", implies=("dog",)), label("dog", implies=("animal",))]
    )
    given, scores = labels.give([[-0.5, 0.2, 0.1], [-0.5, -0.2, 0.1], [0.9, -0.2, -0.2]])
    assert given.tolist() == [[True] * 3, [True, False, True], [False] * 3]
    assert scores[0] == pytest.approx([scores[0, 1]] * 3) and scores[1, 0] == scores[1, 2]
    assert [found.name for found, _ in labels.decide([-0.5, -0.2, 0.1])] == ["animal", "dog"]


def test_labels_that_say_more_come_first() -> None:
    labels = LabelSet([label("person", prevalence=0.4), label("tortoise", prevalence=0.001), label("unknown")])
    assert [found.name for found, _ in labels.decide([0.4, 0.1, 0.1])] == ["tortoise", "unknown", "person"]
    assert telling(labels["tortoise"], 1.0) == pytest.approx(-math.log2(0.001))


def test_related_labels_decide_alike_on_their_own() -> None:
    labels = LabelSet(
        [label("a"), label("b"), label("c", implies=("a",)), label("d", implies=("b",)), label("e"), label("f")],
        [("d", "e")],
    )
    assert [found.name for found in labels.related("a")] == ["a", "c"]
    assert [found.name for found in labels.related("e")] == ["b", "d", "e"]
    assert [found.name for found in labels.related("f")] == ["f"]
    cosines = np.random.default_rng(0).normal(0, 0.2, (200, 6))
    given, scores = labels.give(cosines)
    names = [found.name for found in labels]
    for name in names:
        related = labels.related(name)
        rows = [names.index(found.name) for found in related]
        some, values = related.give(cosines[:, rows])
        column = [found.name for found in related].index(name)
        assert (some[:, column] == given[:, names.index(name)]).all()
        assert (values[:, column] == scores[:, names.index(name)]).all()


def test_rules_survive_toml() -> None:
    labels = LabelSet([label("a", implies=("b",)), label("b", prevalence=0.25), label("c", least=0.75)], [("a", "c")])
    assert LabelSet.loads(labels.dumps()) == labels
    assert LabelSet.loads(labels.dumps()).exclusive == (("a", "c"),)


@pytest.mark.parametrize(
    ("labels", "exclusive", "message"),
    [
        ([label("a", implies=("b",))], (), "label 'b' isn't defined"),
        ([label("a")], [("a", "b")], "label 'b' isn't defined"),
        ([label("a", implies=("a",))], (), "label 'a' implies itself"),
        ([label("a", implies=("b",)), label("b", implies=("c",)), label("c", implies=("a",))], (), "implies itself"),
    ],
)
def test_impossible_rules_are_refused(labels: list[Label], exclusive: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelSet(labels, exclusive)
