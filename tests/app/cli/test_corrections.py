"""`pocketclip corrections` lists and exports the user's decisions."""

import json
from pathlib import Path

from app.library.labels.photo_tags import correct
from app.library.store.connection import Store
from tests.app.cli.conftest import CommandLine


def decide(cli: CommandLine) -> Path:
    """Accept one label of a photo and reject another, as the gallery does, and return the photo."""
    with Store(cli.home / "index.db") as store:
        photo_id, path = store.sql.execute("SELECT id, path FROM photos ORDER BY path LIMIT 1").fetchone()
        correct(store, photo_id, "my street", True)
        correct(store, photo_id, "snow", False)
    return Path(path.decode())


def test_corrections_are_listed_and_exported(cli: CommandLine, photos: Path, tmp_path: Path) -> None:
    nothing = cli("corrections", "list")
    assert nothing.code == 1 and nothing.out == b"" and "nothing is indexed yet" in nothing.err
    cli.index(photos)
    nothing = cli("corrections", "list", "--json")
    assert nothing.code == 1 and nothing.json == [] and "nothing has been corrected" in nothing.err
    photo = decide(cli)

    listed = cli("corrections", "list")
    assert listed.code == 0 and listed.err == ""
    assert listed.out.decode().splitlines() == [f"{photo}\taccepted\tmy street", f"{photo}\trejected\tsnow"]
    assert [sorted(entry) for entry in cli("corrections", "list", "--json").json] == [
        ["decided_at", "hash", "label", "paths", "verdict"]
    ] * 2

    out = tmp_path / "mine.jsonl"
    exported = cli("corrections", "export", out)
    assert exported.code == 0 and exported.out == b"" and "1 photos written" in exported.err
    (row,) = map(json.loads, out.read_text().splitlines())
    assert (tmp_path / row["file"] == photo) and row["label"] == "my street" and row["rejected"] == "snow"
    assert cli("corrections", "export", tmp_path / "mine.txt").code == 2
    assert cli("corrections", "export", tmp_path / "none" / "mine.csv").code == 4

    tagged = {entry["path"]: entry["tags"] for entry in cli.tag("--json").json}
    assert {"label": "my street", "score": 1.0, "source": "you"} in tagged[str(photo)]
    assert "snow" not in {tag["label"] for tag in tagged[str(photo)]}


def test_the_command_is_listed_with_the_gallery(cli: CommandLine) -> None:
    help_ = cli("--help").out.decode()
    assert "corrections" in help_ and help_.index("corrections") < help_.index("Workstation")
