"""If a process dies at any time, the index stays intact, and the next run finishes the work."""

import os
import resource
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mobileclip
from app.library.index.lock import IndexLock
from app.library.store.connection import Store
from app.library.store.photos import paths_of
from app.library.store.roots import add_root
from app.library.store.vectors import id_of_model, vector_blocks
from tests.app.cli.conftest import BUNDLE, CommandLine, real_photos

MANY = 96


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Enough photos for a run that can be stopped halfway, each a different part of a real one."""
    folder = tmp_path / "many"
    folder.mkdir()
    sources = [Image.open(path).convert("RGB") for path in real_photos()]
    for number in range(MANY):
        source = sources[number % len(sources)]
        left = 2 * (number // len(sources))
        part = source.crop((left, left, left + 250, left + 250))
        part.resize((1200, 1200)).save(folder / f"{number:03}.jpg", quality=85)
    return folder


def stored(home: Path) -> int:
    """Return the number of photos that another process sees."""
    try:
        with sqlite3.connect(f"file:{home / 'index.db'}?mode=ro", uri=True, timeout=5) as sql:
            count = sql.execute("SELECT count(*) FROM photos").fetchone()[0]
        sql.close()
        return int(count)
    except sqlite3.OperationalError:
        return 0


def wait_for_some(process: "subprocess.Popen[bytes]", home: Path) -> None:
    deadline = time.monotonic() + 120
    while not stored(home):
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def check(home: Path) -> int:
    """Check that the index is intact and that every photo has a vector and tags; return the number of photos."""
    with sqlite3.connect(home / "index.db") as sql:
        assert sql.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert sql.execute("PRAGMA foreign_key_check").fetchall() == []
        photos = sql.execute("SELECT count(*) FROM photos").fetchone()[0]
        whole = sql.execute(
            "SELECT count(*) FROM photos p JOIN contents c ON c.id = p.content_id"
            " JOIN vectors v ON v.content_id = c.id WHERE c.tagged_by IS NOT NULL"
        ).fetchone()[0]
    sql.close()
    assert whole == photos
    return int(photos)


def test_a_killed_run_is_finished_by_the_next(cli: CommandLine, many: Path) -> None:
    process = cli.popen("index", many, "--model", BUNDLE)
    wait_for_some(process, cli.home)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = check(cli.home)
    assert 0 < done < MANY
    assert len(cli.search("anything", "--json", "-t", "999").json) == done

    rest = cli.index(many, "--json")
    assert rest.code == 0
    assert (rest.json["unchanged"], rest.json["new"]) == (done, MANY - done)
    assert check(cli.home) == MANY
    model = mobileclip.load(BUNDLE, threads=1)
    with Store(cli.home / "index.db") as store:
        model_id = id_of_model(store, model.fingerprint)
        assert model_id is not None
        ((ids, rows),) = vector_blocks(store, model_id, model.dim)
        for row in (0, done - 1, done, MANY - 1):
            (path,) = paths_of(store, int(ids[row]))
            np.testing.assert_allclose(rows[row], model.encode_images([path])[0], atol=2e-3)


def test_ctrl_c_keeps_the_work_so_far(cli: CommandLine, many: Path) -> None:
    process = cli.popen("index", many, "--model", BUNDLE)
    wait_for_some(process, cli.home)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and b"run the same command again" in err and b"Traceback" not in err
    done = check(cli.home)
    assert 0 < done < MANY
    assert cli.index(many, "--json").json["new"] == MANY - done


def test_a_second_indexing_process_is_refused(cli: CommandLine, photos: Path) -> None:
    cli.home.mkdir()
    with IndexLock(cli.home / "index.lock"):
        second = cli.index(photos)
    assert second.code == 4 and len(second.lines) == 1 and f"process {os.getpid()}" in second.err
    assert cli.index(photos).code == 0


def test_search_works_while_another_process_writes(cli: CommandLine, photos: Path) -> None:
    cli.index(photos)
    with Store(cli.home / "index.db") as store, store.transaction():
        add_root(store, "/somewhere")
        assert len(cli.search("anything", "--json").json) == 6


def test_a_full_disk_is_one_line(cli: CommandLine, many: Path) -> None:
    def little_space() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))

    full = cli.index(many, "--quiet", preexec_fn=little_space)
    assert full.code == 4 and len(full.lines) == 1, full.err
    assert "full" in full.err
    done = check(cli.home)
    assert cli.index(many, "--json").json["new"] == MANY - done
