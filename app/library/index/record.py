"""Record what became of one photo, in all tables that it concerns. Call it in a transaction."""

import os

from app.library.files.exif import Facts
from app.library.files.scan import Found
from app.library.store import contents, failures, photos, tags
from app.library.store.connection import Store


def record_photo(store: Store, found: Found, root_id: int, content_hash: bytes, facts: Facts | None = None) -> int:
    """Record that `found` holds the content with this hash; returns the content's id.

    Labels that a person gave this content are there again at once. Without `facts`, the photo is dated by its file, and
    the next index run reads its header.
    """
    content_id = contents.put_content(store, content_hash)
    photos.put_photo(store, found, root_id, content_id, facts)
    tags.restore_own_tags(store, content_id, content_hash)
    failures.remove_failures(store, [os.fsencode(found.path)])
    return content_id


def record_failure(store: Store, found: Found, root_id: int, reason: str, detail: str) -> None:
    """Record that `found` could not be read; what was known of an earlier state of the file is removed."""
    failures.put_failure(store, found, root_id, reason, detail)
    photos.remove_if_changed(store, found)
