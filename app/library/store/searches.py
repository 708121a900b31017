"""The table `searches`: what a person searched for, for suggestions."""

import time

from app.library.store.connection import Store

_KEPT = 200


def remember_search(store: Store, words: str) -> None:
    """Keep a search for suggestions; the oldest beyond a few hundred are forgotten."""
    words = " ".join(words.split())
    if not words:
        return
    with store.transaction():
        store.sql.execute("INSERT OR REPLACE INTO searches VALUES (?, ?)", (words, time.time()))
        store.sql.execute(
            "DELETE FROM searches WHERE words NOT IN (SELECT words FROM searches ORDER BY searched_at DESC LIMIT ?)",
            (_KEPT,),
        )


def past_searches(store: Store, limit: int) -> list[str]:
    """Past searches, the latest first."""
    query = "SELECT words FROM searches ORDER BY searched_at DESC, words LIMIT ?"
    return [row[0] for row in store.sql.execute(query, (limit,))]


def forget_searches(store: Store) -> None:
    """Forget all past searches."""
    with store.transaction():
        store.sql.execute("DELETE FROM searches")
