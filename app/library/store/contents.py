"""The table `contents`: what files hold, known by its hash."""

import time
from collections.abc import Iterable

from app.library.store.connection import Store

# A content that no photo holds keeps its vectors for a month: a drive may come back, and a file may be on its way from
# one indexed folder to another.
GRACE_SECONDS = 30 * 24 * 3600.0


def put_content(store: Store, content_hash: bytes) -> int:
    """The id of the content with this hash, added if it is new; a photo holds it from now on."""
    row = store.sql.execute(
        "INSERT INTO contents (hash) VALUES (?) ON CONFLICT (hash) DO UPDATE SET orphaned_at = NULL RETURNING id",
        (content_hash,),
    ).fetchone()
    return int(row[0])


def id_of_content(store: Store, content_hash: bytes) -> int | None:
    """The id of the content with this hash, or None."""
    row = store.sql.execute("SELECT id FROM contents WHERE hash = ?", (content_hash,)).fetchone()
    return None if row is None else int(row[0])


def set_tagged_by(store: Store, ids: Iterable[int], tagged_by: str | None) -> None:
    """Record which label set decided the tags of some contents; with None, they will be decided again."""
    store.sql.executemany("UPDATE contents SET tagged_by = ? WHERE id = ?", [(tagged_by, each) for each in ids])


def decide_orphans_again(store: Store) -> None:
    """Have the tags of contents that no photo holds decided again when a photo holds them again."""
    store.sql.execute("UPDATE contents SET tagged_by = NULL WHERE orphaned_at IS NOT NULL")


def any_not_tagged_by(store: Store, tagged_by: str) -> bool:
    """Whether a photo's content has tags that this label set did not decide."""
    query = "SELECT 1 FROM contents WHERE orphaned_at IS NULL AND tagged_by IS NOT ? LIMIT 1"
    return store.sql.execute(query, (tagged_by,)).fetchone() is not None


def count_by_label_set(store: Store) -> dict[str, int]:
    """How many contents each label set decided, by its fingerprint."""
    query = (
        "SELECT c.tagged_by, count(*) FROM contents c WHERE c.tagged_by IS NOT NULL"
        " AND EXISTS (SELECT 1 FROM photos p WHERE p.content_id = c.id) GROUP BY c.tagged_by"
    )
    return dict(store.sql.execute(query))


def forget_orphans(store: Store) -> None:
    """Note which contents no photo holds, and remove those that no photo has held for GRACE_SECONDS.

    Contents that a person gave a label are kept.
    """
    now = time.time()
    store.sql.execute(
        "UPDATE contents SET orphaned_at = ? WHERE orphaned_at IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM photos p WHERE p.content_id = contents.id)",
        (now,),
    )
    store.sql.execute(
        "DELETE FROM contents WHERE orphaned_at < ?"
        " AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.content_id = contents.id AND t.source = 'you')",
        (now - GRACE_SECONDS,),
    )
