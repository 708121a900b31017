"""Each table has one module that owns it: all writes are there, and other modules read it only in named joins."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from app.library.store import schema
from app.library.store.connection import Store

APP = Path(__file__).parents[4] / "app"
STORE = APP / "library" / "store"

OWNERS = {
    "contents": "contents",
    "corrections": "corrections",
    "decided": "tags",
    "excluded": "patterns",
    "failures": "failures",
    "meta": "connection",
    "models": "vectors",
    "own_fits": "custom_labels",
    "own_labels": "custom_labels",
    "photos": "photos",
    "roots": "roots",
    "searches": "searches",
    "seen": "seen",
    "tags": "tags",
    "todo": "seen",
    "vectors": "vectors",
}
"""Table → the module of `app.library.store` with all of its SQL."""

JOINS = {
    "contents": {"photos", "tags"},  # whether a photo holds a content, and whether a person gave it a tag
    "corrections": {"contents", "photos", "vectors"},  # corrections are kept by hash, everything else by content id
    "failures": {"seen"},  # those that a scan did not meet
    "filter": {"tags"},  # photos by label
    "photos": {"contents", "seen", "tags", "vectors"},  # hash, what a scan met, cover of a label, photos with a vector
    "roots": {"photos"},  # how many photos a root has
    "seen": {"failures", "photos", "vectors"},  # what of a scan is new
    "tags": {"contents", "corrections", "photos"},  # corrections win; photos of a label; labels of a photo
    "vectors": {"contents", "photos"},  # vectors that a photo holds, by hash or content id
}
"""Module → tables of others that its statements read, each because the answer would otherwise be put together in Python
from thousands of rows."""

STATEMENT = re.compile(
    r"\b(SELECT|INSERT|UPDATE|DELETE|REPLACE|CREATE|DROP|ALTER|PRAGMA|VACUUM|BEGIN|COMMIT|ROLLBACK)\b"
)
WRITE = re.compile(
    r"\b(?:INTO|DELETE\s+FROM|UPDATE(?:\s+OR\s+\w+)?|(?:TABLE|ON)(?:\s+IF\s+EXISTS)?)\s+(?:temp\.)?([\w{}]+)", re.I
)
READ = re.compile(r"\b(?:FROM|JOIN)\s+(?:temp\.)?([\w{}]+)", re.I)


class Use(NamedTuple):
    """One table in one statement."""

    table: str
    writes: bool


def texts(tree: ast.AST) -> Iterator[str]:
    """Every string of a module except docstrings; {} stands for what is formatted in."""
    skipped = set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            skipped.update(id(value) for value in node.values)
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.value


def uses(source: str) -> list[Use]:
    """The tables that the SQL of a module writes and reads."""
    found = []
    for text in texts(ast.parse(source)):
        if not STATEMENT.search(text) and not re.search(
            r"\b(from|join|into|update)\s+\w+\b.*\b(where|set|values)\b", text
        ):
            continue
        written = [name for name in WRITE.findall(text) if name.upper() not in {"SET", "CONFLICT"}]
        found += [Use(name, True) for name in written if name in OWNERS or "{" in name]
        deletes = re.sub(r"\bDELETE\s+FROM\b", "DELETE", text, flags=re.I)
        found += [Use(name, False) for name in READ.findall(deletes) if name in OWNERS or name == "{}"]
    return found


def problems(module: str, source: str) -> list[str]:
    """What the SQL of a module does that it should not."""
    found = []
    for table, writes in uses(source):
        if "{" in table:
            found.append(f"{module}: the name of a table must not be put together")
        elif OWNERS[table] == module:
            continue
        elif writes:
            found.append(f"{module} writes {table}, which {OWNERS[table]} owns")
        elif table not in JOINS.get(module, set()):
            found.append(f"{module} reads {table}, which {OWNERS[table]} owns")
    return found


def modules() -> dict[str, str]:
    """Source of each module of the store but the definition of the tables, which concerns all of them."""
    return {path.stem: path.read_text("utf-8") for path in STORE.glob("*.py") if path.stem != "schema"}


@pytest.mark.parametrize("module", sorted(modules()))
def test_sql_on_a_table_is_in_the_module_that_owns_it(module: str) -> None:
    assert problems(module, modules()[module]) == []


def test_every_table_is_owned_and_every_join_is_needed(store: Store) -> None:
    tables = {name for (name,) in store.sql.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert tables | {"seen", "todo"} == set(OWNERS)
    assert set(OWNERS.values()) <= set(modules())
    for table, owner in OWNERS.items():
        assert any(use.table == table for use in uses(modules()[owner])), f"{owner} has no SQL on {table}"
    for module, joined in JOINS.items():
        assert joined <= {table for table, writes in uses(modules()[module]) if not writes}, module


def test_no_other_folder_executes_sql() -> None:
    calls = 0
    for path in sorted(APP.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in {"sql", "execute", "executemany", "executescript"}:
                calls += 1
                assert path.parent == STORE, f"{path.relative_to(APP)}:{node.lineno} touches the connection"
    assert calls > 50


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("photos", '"DELETE FROM tags WHERE label = ?"'),
        ("photos", '"INSERT INTO contents (hash) VALUES (?)"'),
        ("photos", '"INSERT OR REPLACE INTO tags VALUES (?, ?)"'),
        ("tags", '"UPDATE contents SET tagged_by = NULL"'),
        ("tags", '"UPDATE OR IGNORE contents SET tagged_by = NULL"'),
        ("tags", '"DROP TABLE searches"'),
        ("tags", '"SELECT words FROM searches"'),
        ("tags", '"select words from searches where 1"'),
        ("tags", '"SELECT 1 FROM tags t"\n    " JOIN searches s ON 1"'),
        ("searches", 'f"SELECT words FROM searches WHERE {x}" + "AND EXISTS (SELECT 1 FROM photos)"'),
        ("searches", 'f"DELETE FROM {table} WHERE path = ?"'),
        ("searches", 'f"SELECT path FROM {table}"'),
        ("filter", '"DELETE FROM tags"'),
        ("seen", '"INSERT INTO temp.todo SELECT path FROM roots"'),
    ],
)
def test_a_stray_statement_is_found(module: str, statement: str) -> None:
    source = modules()[module]
    assert problems(module, source) == []
    assert problems(module, f"{source}\n\ndef stray():\n    return ({statement})\n")


def test_forgetting_everything_knows_every_table(store: Store) -> None:
    tables = {name for (name,) in store.sql.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert sorted((*schema.MADE_FROM_PHOTOS, *schema.DECISIONS)) == sorted(tables - {"meta"})
