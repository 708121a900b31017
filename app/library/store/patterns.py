"""The table `excluded`: patterns of files and folders that a person does not want in the library."""

from app.library.store.connection import Store


def list_patterns(store: Store) -> list[str]:
    """The patterns, sorted."""
    return [row[0] for row in store.sql.execute("SELECT pattern FROM excluded ORDER BY pattern")]


def add_pattern(store: Store, pattern: str) -> None:
    """Add a pattern unless it is there."""
    store.sql.execute("INSERT OR IGNORE INTO excluded VALUES (?)", (pattern,))


def remove_pattern(store: Store, pattern: str) -> bool:
    """Remove a pattern; returns whether it was there."""
    return store.sql.execute("DELETE FROM excluded WHERE pattern = ?", (pattern,)).rowcount > 0
