"""An index of any older version opens, keeps all its data, and then equals a new one."""

import sqlite3
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from app.library.errors import LibraryError
from app.library.files.content import content_hash
from app.library.search.timeline import timeline
from app.library.store import schema
from app.library.store.connection import Store
from app.library.store.failures import count_failures
from app.library.store.photos import count_held_contents, count_photos, list_photos
from app.library.store.tags import count_tags
from tests.app.library.conftest import ask

# The tables as version 1 made them, word for word, and never to be changed.
VERSION_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE roots (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,
    read_at REAL                          -- when it was last read to the end, Unix seconds
);

CREATE TABLE contents (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    tagged_by TEXT,                       -- the label set whose decisions are in tags
    orphaned_at REAL                      -- since when no photo holds this content
);

CREATE TABLE photos (
    id INTEGER PRIMARY KEY,
    root_id INTEGER NOT NULL REFERENCES roots ON DELETE CASCADE,
    path BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    content_id INTEGER NOT NULL REFERENCES contents
);
CREATE INDEX photos_by_content ON photos (content_id);
CREATE INDEX photos_by_root ON photos (root_id);

CREATE TABLE models (
    id INTEGER PRIMARY KEY,
    fingerprint TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    dim INTEGER NOT NULL
);

CREATE TABLE vectors (
    id INTEGER PRIMARY KEY,
    model_id INTEGER NOT NULL REFERENCES models ON DELETE CASCADE,
    content_id INTEGER NOT NULL REFERENCES contents ON DELETE CASCADE,
    vector BLOB NOT NULL,                 -- float16, little endian, dim of the model
    UNIQUE (model_id, content_id)
);
CREATE INDEX vectors_by_content ON vectors (content_id);

CREATE TABLE tags (
    content_id INTEGER NOT NULL REFERENCES contents ON DELETE CASCADE,
    label TEXT NOT NULL,
    score REAL NOT NULL,
    source TEXT NOT NULL CHECK (source IN ('model', 'you')),
    PRIMARY KEY (content_id, label)
) WITHOUT ROWID;

CREATE TABLE failures (
    path BLOB PRIMARY KEY,
    root_id INTEGER NOT NULL REFERENCES roots ON DELETE CASCADE,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    failed_at REAL NOT NULL
) WITHOUT ROWID;
"""
COUNTED = (
    "INSERT ON photos",
    "DELETE ON photos",
    "UPDATE OF content_id ON photos",
    "INSERT ON vectors",
    "DELETE ON vectors",
    "UPDATE ON vectors",
)


def old_index(path: Path, folder: Path, model) -> None:
    """What version 1 left after indexing `folder`, with a tag of a person's own on each photo."""
    path.parent.mkdir(parents=True)
    sql = sqlite3.connect(path)
    sql.executescript(VERSION_1)
    for number, event in enumerate(COUNTED):
        sql.execute(
            f"CREATE TRIGGER count_{number} AFTER {event} BEGIN"
            " UPDATE meta SET value = value + 1 WHERE key = 'changes'; END"
        )
    sql.execute("INSERT INTO meta VALUES ('changes', 0), ('identity', 'abc')")
    sql.execute("INSERT INTO roots VALUES (1, ?, NULL)", (str(folder).encode(),))
    sql.execute("INSERT INTO models VALUES (1, ?, ?, ?)", (model.fingerprint, model.name, model.dim))
    for number, photo in enumerate(sorted(folder.rglob("*.*")), 1):
        status = photo.stat()
        sql.execute("INSERT INTO contents VALUES (?, ?, NULL, NULL)", (number, content_hash(str(photo))))
        sql.execute(
            "INSERT INTO photos VALUES (?, 1, ?, ?, ?, ?)",
            (number, str(photo).encode(), status.st_size, status.st_mtime_ns, number),
        )
        vector = model.encode_images([photo])[0].astype("<f2").tobytes()
        sql.execute("INSERT INTO vectors VALUES (?, 1, ?, ?)", (number, number, vector))
        sql.execute("INSERT INTO tags VALUES (?, 'holiday', 1, 'you')", (number,))
    sql.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    sql.execute("PRAGMA user_version = 1")
    sql.commit()
    sql.close()


def tables(sql: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """Every table, index and trigger with its columns in order, without the SQL text."""
    found = []
    for kind, name in sql.execute("SELECT type, name FROM sqlite_schema ORDER BY type, name").fetchall():
        info = "index_xinfo" if kind == "index" else "table_info"
        found.append((kind, name, str(sql.execute(f"PRAGMA {info}({name})").fetchall())))
    return found


def test_an_old_index_opens_with_all_it_had(tmp_path: Path, photos: Path, model) -> None:
    path = tmp_path / "home" / "index.db"
    old_index(path, photos, model)
    with Store(path) as store:
        assert store.sql.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
        assert (count_photos(store), count_held_contents(store), count_tags(store), count_failures(store)) == (
            8,
            8,
            8,
            0,
        )
        assert len(ask(store, model, "bright").ids) == 8
        for photo in list_photos(store, timeline(store).ids):
            changed = datetime.fromtimestamp(Path(photo.path).stat().st_mtime)
            assert abs((photo.taken - changed).total_seconds()) < 1.1
            assert (photo.taken_from, photo.width) == ("file", 0)
        decided = store.sql.execute("SELECT label, verdict FROM corrections").fetchall()
        assert decided == [("holiday", 1)] * 8
        assert store.sql.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        with Store(tmp_path / "new.db", create=True) as new:
            assert tables(store.sql) == tables(new.sql)


def test_the_next_run_reads_headers_and_nothing_else(tmp_path: Path, photos: Path, model) -> None:
    from app.library.index.run import Options, index_folders

    path = tmp_path / "home" / "index.db"
    old_index(path, photos, model)
    with Store(path) as store:
        stages = []
        report = index_folders(store, model, [str(photos)], Options(), progress=lambda state: stages.append(state))
        assert (report.embedded, report.reused, report.unchanged, model.seen) == (0, 0, 8, 0)
        assert [(state.done, state.total) for state in stages if state.stage == "dates"] == [(8, 8)]
        assert all(photo.width and photo.height for photo in list_photos(store, timeline(store).ids))
        stages.clear()
        index_folders(store, model, [str(photos)], Options(), progress=lambda state: stages.append(state))
        assert not [state for state in stages if state.stage == "dates"]
        labels = {label for (label,) in store.sql.execute("SELECT label FROM tags WHERE source = 'you'")}
        assert labels == {"holiday"}


def test_a_failed_upgrade_leaves_the_old_index(
    tmp_path: Path, photos: Path, model, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "home" / "index.db"
    old_index(path, photos, model)
    before = sqlite3.connect(path)
    expected = tables(before)
    before.close()
    with monkeypatch.context() as broken:
        broken.setitem(schema._UPGRADES, 2, schema._UPGRADES[2] + "INSERT INTO no_such_table VALUES (1);")
        with pytest.raises(LibraryError, match="cannot be used"):
            Store(path)
    again = sqlite3.connect(path)
    assert again.execute("PRAGMA user_version").fetchone() == (1,) and tables(again) == expected
    again.close()
    with Store(path) as store:
        assert count_photos(store) == 8


def test_two_processes_may_upgrade_at_once(tmp_path: Path, photos: Path, model) -> None:
    path = tmp_path / "home" / "index.db"
    old_index(path, photos, model)
    code = (
        "import sys, time; from pathlib import Path; from app.library.store.connection import Store\n"
        "from app.library.store.photos import count_photos\n"
        "time.sleep(max(0, float(sys.argv[2]) - time.time()))\n"
        "store = Store(Path(sys.argv[1])); print(count_photos(store))"
    )
    start = str(time.time() + 1.5)
    command = [sys.executable, "-c", code, str(path), start]
    root = Path(__file__).parents[4]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(3)]
    assert [process.communicate()[0].strip() for process in running] == ["8", "8", "8"]


def test_a_newer_index_is_refused_politely(tmp_path: Path, store: Store) -> None:
    store.sql.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    with pytest.raises(LibraryError, match="newer pocketclip"):
        Store(store.path)
