"""Days, filters and rows, compared with a plain Python loop over the same photos."""

import os
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.library.files.exif import Facts
from app.library.files.scan import Found
from app.library.index.record import record_photo
from app.library.search.timeline import timeline
from app.library.store.connection import Store
from app.library.store.filter import Filter
from app.library.store.photos import contents_of, list_folders, list_photos, photos_with
from app.library.store.roots import add_root
from app.library.store.tags import put_tags

EPOCH = datetime(1970, 1, 1)
moments = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1))
entries = st.lists(st.tuples(moments, st.integers(0, 3), st.integers(0, 5)), max_size=20)


def fill(store: Store, given_: list[tuple[datetime, int, int]]) -> list[tuple[int, datetime, str, int]]:
    """One photo for each (moment, folder, content): (id, moment, path, content)."""
    filled = []
    with store.transaction():
        for table in ("photos", "contents", "tags", "roots"):
            store.sql.execute(f"DELETE FROM {table}")
        root = add_root(store, "/p")
        for number, (moment, folder, content) in enumerate(given_):
            facts = Facts(4, 3, (moment - EPOCH).total_seconds(), "camera")
            path = f"/p/{folder}/{number}.jpg"
            content_id = record_photo(store, Found(path, 7, 1), root, bytes([content]) * 32, facts)
            put_tags(store, content_id, [("even" if content % 2 == 0 else "odd", 0.9)], "rules")
            (photo_id,) = store.sql.execute("SELECT id FROM photos WHERE path = ?", (path.encode(),)).fetchone()
            filled.append((photo_id, moment, path, content_id))
    return filled


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries, st.sets(st.integers(0, 3), max_size=2), st.sampled_from([(), ("even",), ("even", "odd")]),
       st.none() | st.dates(date(1890, 1, 1)), st.none() | st.dates(date(1890, 1, 1)))  # fmt: skip
def test_a_filter_is_what_a_loop_would_do(store: Store, given_, chosen, labels, first, last) -> None:
    filled = fill(store, given_)
    only = Filter(labels, tuple(f"/p/{folder}" for folder in sorted(chosen)), first, last)
    expected = [
        (moment, photo_id, content)
        for (photo_id, moment, path, content), (_, folder, number) in zip(filled, given_, strict=True)
        if (not chosen or folder in chosen)
        and all((number % 2 == 0) == (label == "even") for label in labels)
        and (first is None or moment.date() >= first)
        and (last is None or moment.date() <= last)
    ]
    expected.sort(reverse=True)
    found = timeline(store, only)
    assert found.ids.tolist() == [photo_id for _, photo_id, _ in expected]
    days = [moment.date() for moment, _, _ in expected]
    assert [day.date for day in found.days] == sorted(set(days), reverse=True)
    for day in found.days:
        assert days[day.start : day.start + day.count] == [day.date] * day.count
    assert sum(day.count for day in found.days) == len(expected)
    assert contents_of(store, only).tolist() == sorted({content for _, _, content in expected})
    held = photos_with(store, list(range(1, 30)), only)
    assert {photo for photos_ in held.values() for photo in photos_} == set(found.ids.tolist())


def test_the_last_day_there_is(store: Store) -> None:
    fill(store, [(datetime(2020, 1, 1), 0, 0)])
    assert len(timeline(store, Filter(first=date.min, last=date.max)).ids) == 1


def test_rows_come_in_the_order_they_are_asked_for(store: Store) -> None:
    filled = fill(store, [(EPOCH + timedelta(days=n), n % 4, n % 6) for n in range(1200)])
    wanted = [photo_id for photo_id, *_ in filled][::-1]
    rows = list_photos(store, np.array([*wanted, 10**9]))
    assert [row.id for row in rows] == wanted
    assert [row.path for row in rows] == [path for _, _, path, _ in filled][::-1]
    assert [row.taken for row in rows] == [moment for _, moment, _, _ in filled][::-1]
    assert {(row.width, row.height, row.size, row.taken_from) for row in rows} == {(4, 3, 7, "camera")}
    assert rows[0].key == bytes([1199 % 6]).hex() * 32
    assert list_photos(store, []) == []


def test_folders_are_those_with_photos_in_them(store: Store) -> None:
    fill(store, [(EPOCH, n % 3, n) for n in range(7)])
    assert [(folder.path, folder.photos) for folder in list_folders(store)] == [("/p/0", 3), ("/p/1", 2), ("/p/2", 2)]


def test_camera_dates_come_from_the_photos_themselves(photos_with_dates: Path, run, store: Store) -> None:
    run(photos_with_dates)
    days = {Path(photo.path).name: photo.taken.date() for photo in list_photos(store, timeline(store).ids)}
    assert days["astronaut.jpg"] == date(2019, 7, 14) and days["coffee.jpg"] == date(2003, 1, 2)
    assert [day.date for day in timeline(store).days][-1] == date(2003, 1, 2)


def test_bytes_that_are_no_text_survive(store: Store) -> None:
    with store.transaction():
        root = add_root(store, "/p")
        record_photo(store, Found(os.fsdecode(b"/p/\xff/a.jpg"), 1, 1), root, b"x" * 32)
    (row,) = list_photos(store, timeline(store).ids)
    assert os.fsencode(row.path) == b"/p/\xff/a.jpg"
    assert os.fsencode(list_folders(store)[0].path) == b"/p/\xff"
