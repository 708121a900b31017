"""Evidence for labels."""

from pathlib import Path

from distill.evaluate.evidence import LabelEvidence, read_known_photos, truth


def test_evidence_is_yes_no_or_unknown(data: Path) -> None:
    photos = read_known_photos(data, ["shapes", "colors"])
    labels = [
        LabelEvidence("red", "g", ("red",), words=("red",), classes=("colors:red",)),
        LabelEvidence("disc", "g", ("disc",), words=("disc",), unsure=("colors:*",)),
        LabelEvidence("dis", "g", ("dis",), words=("dis", "d dis")),
    ]
    table = truth(photos, labels)
    for photo, (red, disc, part) in zip(photos, table, strict=True):
        number = int(photo.path.stem)
        assert red == (number % 4 == 0)
        assert disc == (-1 if photo.collection == "colors" else number // 4 % 2)
        assert part == 0, "only full words count"
    roles = [p.role for p in photos if p.collection == "colors"]
    assert roles.count("seen") == 16 and 0 < roles.count("measure") < 16
    assert {p.role for p in photos if p.collection == "shapes"} == {"seen", "measure"}
