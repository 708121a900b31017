"""The command line from end to end: index, search, tag, change, move and delete photos, index again."""

import json
import os
import shutil
import sqlite3
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image

from tests.app.cli.conftest import BAD_AMONG_HOSTILE, BUNDLE, GOOD_AMONG_HOSTILE, HOSTILE_NAMES, CommandLine


def paths(data: list[dict]) -> list[bytes]:
    return [os.fsencode(entry["path"]) for entry in data]


def test_index_search_and_tag(cli: CommandLine, photos: Path) -> None:
    indexed = cli.index(photos)
    assert indexed.code == 0 and indexed.out == b""
    assert "6 photos: 6 new" in indexed.err

    found = cli.search("a photo of a cat", "--json", "-t", "4")
    assert found.code == 0 and found.err == ""
    assert [sorted(hit) for hit in found.json] == [["path", "score", "strength"]] * 4
    scores = [hit["score"] for hit in found.json]
    assert scores == sorted(scores, reverse=True) and all(-1 <= score <= 1 for score in scores)
    assert {hit["strength"] for hit in found.json} <= {"strong", "weak"}

    tagged = cli.tag("--json")
    assert tagged.code == 0
    assert paths(tagged.json) == sorted(os.fsencode(path) for path in photos.rglob("*.*"))
    for entry in tagged.json:
        scores = [tag["score"] for tag in entry["tags"]]
        assert scores == sorted(scores, reverse=True) and all(0.5 <= score <= 1 for score in scores)
        assert all(sorted(tag) == ["label", "score", "source"] for tag in entry["tags"])
        assert all(tag["source"] == "model" for tag in entry["tags"])


def test_bad_files_are_reported_and_good_ones_are_found(cli: CommandLine, hostile: Path) -> None:
    before = {path: path.lstat().st_mtime_ns for path in hostile.rglob("*")}
    indexed = cli.index(hostile, "--json")
    assert indexed.code == 3
    report = indexed.json
    assert report["new"] + report["reused"] == GOOD_AMONG_HOSTILE
    assert {Path(failure["path"]).name for failure in report["failed"]} == BAD_AMONG_HOSTILE
    assert all(failure["reason"] for failure in report["failed"])

    names = {os.fsencode(Path(entry["path"]).name) for entry in cli.tag("--json").json}
    assert set(HOSTILE_NAMES) <= names and len(names) == GOOD_AMONG_HOSTILE

    again = cli.index(hostile, "--json")
    assert again.code == 0
    assert (again.json["unchanged"], again.json["failed"]) == (GOOD_AMONG_HOSTILE, [])
    assert again.json["failed_before"] == 4  # the pipe and the broken link aren't files
    assert len(cli("status", "--json").json["failures"]) == len(BAD_AMONG_HOSTILE)
    assert cli.index(hostile, "--retry").code == 3
    assert {path: path.lstat().st_mtime_ns for path in hostile.rglob("*")} == before


def test_changed_moved_copied_and_deleted_photos(cli: CommandLine, photos: Path) -> None:
    assert cli.index(photos).code == 0
    first = {entry["path"]: entry["tags"] for entry in cli.tag("--json").json}
    (photos / "sub").mkdir()
    (photos / "coffee.png").rename(photos / "sub" / "espresso.png")
    (photos / "flower.jpg").unlink()
    with Image.open(photos / "china.jpg") as image:
        image.rotate(180).save(photos / "china.jpg")
    shutil.copy(photos / "animals and people" / "astronaut.png", photos / "astronaut copy.png")

    report = cli.index(photos, "--json").json
    assert (report["new"], report["reused"], report["unchanged"], report["removed"]) == (1, 2, 3, 2)
    after = {entry["path"]: entry["tags"] for entry in cli.tag("--json").json}
    assert after[str(photos / "sub" / "espresso.png")] == first[str(photos / "coffee.png")]
    assert str(photos / "flower.jpg") not in after and str(photos / "coffee.png") not in after
    last = cli.index("--json").json
    assert (last["found"], last["unchanged"]) == (6, 6)


def test_photos_of_a_missing_folder_stay_in_the_index(cli: CommandLine, photos: Path, tmp_path: Path) -> None:
    cli.index(photos)
    photos.rename(tmp_path / "unplugged")
    gone = cli.index(photos)
    assert gone.code == 3 and "its photos are kept" in gone.err
    assert len(cli.search("anything", "--json", "-t", "99").json) == 6
    photos.mkdir()
    empty = cli.index(photos, "--json")
    assert (empty.json["removed"], empty.json["spared"]) == (0, [str(photos)])
    photos.rmdir()
    (tmp_path / "unplugged").rename(photos)
    assert cli.index(photos, "--json").json["unchanged"] == 6


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_photos_without_permission_stay_in_the_index(cli: CommandLine, photos: Path) -> None:
    cli.index(photos)
    (photos / "coffee.png").chmod(0)
    os.utime(photos / "coffee.png", (1, 1))
    (photos / "animals and people").chmod(0)
    try:
        report = cli.index(photos, "--json")
    finally:
        (photos / "animals and people").chmod(0o755)
        (photos / "coffee.png").chmod(0o644)
    assert report.code == 3 and report.json["removed"] == 0
    assert [failure["reason"] for failure in report.json["failed"]] == ["no permission"]
    assert [Path(entry["path"]).name for entry in report.json["unread"]] == ["animals and people"]
    assert cli.index(photos, "--json").json["reused"] == 1


def test_a_photo_as_query_and_added_and_subtracted_texts(cli: CommandLine, photos: Path) -> None:
    cli.index(photos)
    query = str(photos / "flower.jpg")
    similar = cli.search(query, "--json").json
    assert len(similar) == 5 and query not in [hit["path"] for hit in similar]
    plain = cli.search("flower", "--json").json
    mixed = cli.search("2:flower", "--add", "cat", "--subtract", "0.5:rocket", "--json").json
    assert len(mixed) == 6 and mixed != plain
    assert cli.search("flower", "--subtract", "flower").code == 4


def test_paths_for_other_programs(cli: CommandLine, hostile: Path) -> None:
    cli.index(hostile)
    zero = cli.search("a temple", "-0", "-t", "99")
    found = zero.out.split(b"\0")
    assert found.pop() == b"" and len(found) == GOOD_AMONG_HOSTILE
    assert all(Path(os.fsdecode(path)).is_file() for path in found)
    assert cli.search("a temple", "-f", "-t", "2").out == b"\n".join(found[:2]) + b"\n"
    rows = cli.search("a temple", "-t", "99").out.split(b"\n")
    assert rows.pop() == b"" and len(rows) == GOOD_AMONG_HOSTILE
    assert all(len(row.split(b"\t")) == 3 for row in rows)
    assert any(rb"new\nline" in row for row in rows) and any(b"bytes-\xff\xfe" in row for row in rows)


def test_only_photos_in_a_folder(cli: CommandLine, photos: Path) -> None:
    cli.index(photos)
    inner = photos / "animals and people"
    found = cli.search("anything", "--in", inner, "--json").json
    assert {Path(hit["path"]).name for hit in found} == {"astronaut.png", "chelsea.png"}
    assert len(cli.tag(inner, "--json").json) == 2
    nowhere = cli.tag("/nowhere", "--json")
    assert (nowhere.code, nowhere.json) == (1, [])
    assert cli.search("anything", "--in", "/nowhere", "--json").code == 1


def date_photos(photos: Path, days: dict[str, str]) -> None:
    """Set the modification times of these photos to noon of a day, which counts as the day of the shot."""
    for name, day in days.items():
        (path,) = photos.rglob(name)
        noon = datetime.fromisoformat(f"{day}T12:00").timestamp()
        os.utime(path, (noon, noon))


DAYS = {
    "astronaut.png": "2019-07-14",
    "chelsea.png": "2020-01-01",
    "coffee.png": "2020-02-29",
    "rocket.jpg": "2020-12-31",
    "china.jpg": "2021-01-01",
    "flower.jpg": "2022-06-30",
}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--from", "2020", "--to", "2020"], ["rocket.jpg", "coffee.png", "chelsea.png"]),
        (["--from", "2020-02", "--to", "2020-12"], ["rocket.jpg", "coffee.png"]),
        (["--from", "2020-02-29", "--to", "2020-02-29"], ["coffee.png"]),
        (["--to", "2020-01-01"], ["chelsea.png", "astronaut.png"]),
        (["--from", "2021"], ["flower.jpg", "china.jpg"]),
        (["--from", "2021", "-t", "1"], ["flower.jpg"]),
        (["--from", "2023"], []),
    ],
)
def test_dates_without_a_query_list_photos_newest_first(
    cli: CommandLine, photos: Path, arguments: list[str], expected: list[str]
) -> None:
    date_photos(photos, DAYS)
    cli.index(photos)
    found = cli.search(*arguments, "--json")
    assert found.code == (0 if expected else 1)
    assert [Path(hit["path"]).name for hit in found.json] == expected
    assert {(hit["score"], hit["strength"]) for hit in found.json} <= {(0.0, "strong")}
    ranked = cli.search("a photo", *arguments, "--json").json
    if "-t" not in arguments:
        assert {hit["path"] for hit in ranked} == {hit["path"] for hit in found.json}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--from", "yesterday"],
        ["--to", "2023-02-29"],
        ["--from", "2024-13"],
        ["--from", "2024", "--to", "2023-12-31"],
        ["--label", " "],
        ["cat", "--without", ""],
    ],
)
def test_invalid_filters_are_wrong_usage(cli: CommandLine, arguments: list[str]) -> None:
    result = cli.search(*arguments)
    assert result.code == 2 and result.out == b"" and "Traceback" not in result.err
    assert not cli.home.exists()


def test_only_photos_with_a_label(cli: CommandLine, photos: Path) -> None:
    cli.index(photos)
    tags = {entry["path"]: {tag["label"] for tag in entry["tags"]} for entry in cli.tag("--json").json}
    label = next(label for labels in tags.values() for label in sorted(labels))
    expected = {path for path, labels in tags.items() if label in labels}
    assert {hit["path"] for hit in cli.search("--label", label, "--json").json} == expected
    ranked = cli.search("anything", "--label", label, "-t", "99", "--json").json
    everything = cli.search("anything", "-t", "99", "--json").json
    assert ranked == [hit for hit in everything if hit["path"] in expected]
    nothing = cli.search("anything", "--label", label, "--label", "no such label", "--json")
    assert nothing.code == 1 and nothing.json == [] and "no photo is tagged 'no such label'" in nothing.err


def test_photos_that_show_something_are_dropped(cli: CommandLine, photos: Path) -> None:
    cli.index(photos)
    everything = cli.search("anything", "-t", "99", "--json").json
    unwanted = "a photo of a cat"
    shown = {hit["path"] for hit in cli.search(unwanted, "-t", "99", "--json").json if hit["strength"] == "strong"}
    assert 0 < len(shown) < len(everything)
    remaining = cli.search("anything", "--without", unwanted, "-t", "99", "--json").json
    assert remaining == [hit for hit in everything if hit["path"] not in shown]
    unranked = cli.search("--without", unwanted, "--json").json
    assert {hit["path"] for hit in unranked} == {hit["path"] for hit in everything} - shown
    tags = {entry["path"]: {tag["label"] for tag in entry["tags"]} for entry in cli.tag("--json").json}
    label = next(label for labels in tags.values() for label in sorted(labels))
    remaining = cli.search("--without", label, "--json").json
    assert not {hit["path"] for hit in remaining} & {path for path, labels in tags.items() if label in labels}


def test_a_tilde_without_a_home_is_text(cli: CommandLine, photos: Path) -> None:
    cli.index(photos)
    assert cli.search("~cat", "--json").code == 0


def test_labels_status_and_models(cli: CommandLine, photos: Path) -> None:
    labels = cli("labels", "--json", "--model", BUNDLE).json
    assert labels and all({"label", "group", "threshold", "prompts"} <= set(label) for label in labels)
    assert cli("labels", "--model", BUNDLE).code == 0
    assert cli("status", "--json").code == 1
    cli.index(photos)
    status = cli("status", "--json").json
    assert (status["photos"], status["contents"], status["failures"]) == (6, 6, [])
    assert [model["vectors"] for model in status["models"]] == [6]
    assert [root["path"] for root in status["roots"]] == [str(photos)]
    assert list(status["label_sets"].values()) == [6] and status["bytes"] > 0
    assert cli("status").code == 0
    for models in (cli("models", "--json").json, cli("models", "list", "--json").json):
        assert models["installed"]
        for model in models["installed"]:
            assert {"name", "bytes", "licence", "dim", "figures"} <= set(model)
    assert cli("models", "show", models["installed"][0]["name"], "--json").json == models["installed"][0]
    available = cli("models", "available", "--json").json["available"]
    assert available
    for model in available:
        assert {"name", "source", "bytes", "licence", "research_only"} <= set(model)


def test_models_do_not_mix_and_new_labels_need_no_photos(cli: CommandLine, photos: Path, tiny_bundle) -> None:
    tiny = tiny_bundle()
    cli.index(photos)
    unknown = cli("search", "anything", "--model", tiny)
    assert unknown.code == 1 and "another model" in unknown.err and len(unknown.lines) == 1
    assert cli("index", photos, "--model", tiny, "--json").json["new"] == 6
    assert cli.index(photos, "--json").json["unchanged"] == 6
    assert sorted(model["vectors"] for model in cli("status", "--json").json["models"]) == [6, 6]

    before = cli("tag", "--json", "--model", tiny).json
    shutil.rmtree(photos)
    relabeled = cli("tag", "--json", "--model", tiny_bundle(labels=("loud", "quiet", "mute")))
    assert relabeled.code == 0, relabeled.err
    after = relabeled.json
    assert [entry["path"] for entry in before] == [entry["path"] for entry in after]
    assert {tag["label"] for entry in after for tag in entry["tags"]} <= {"loud", "quiet", "mute"}


def test_any_program_can_read_the_index(cli: CommandLine, photos: Path) -> None:
    cli.index(photos)
    with sqlite3.connect(cli.home / "index.db") as sql:
        assert sql.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert sql.execute("SELECT count(*) FROM photos JOIN vectors USING (content_id)").fetchone() == (6,)
    sql.close()
    assert sorted(json.loads(cli("status", "--json").out))[0] == "bytes"
