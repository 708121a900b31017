"""Imports: no circles, among files or folders, and each layer imports only what ARCHITECTURE.md allows."""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("mobileclip", "distill", "export", "app", "pocketclip")

Graph = Mapping[str, frozenset[str]]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)


@cache
def sources() -> Mapping[str, Path]:
    """All modules, with packages under the name of their `__init__`."""
    files = (path for package in PACKAGES for path in sorted((REPOSITORY / package).rglob("*.py")))
    return {module_name(path): path for path in files}


def resolve(name: str) -> str | None:
    """Find the file of a dotted name: a module, or the `__init__` of a package."""
    return next((found for found in (name, f"{name}.__init__") if found in sources()), None)


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Yield the files that a module imports anywhere, including in functions and for type checkers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from package import name` imports a module of the package, or a name that its `__init__` defines.
            names = [full if resolve(full := f"{node.module}.{alias.name}") else node.module for alias in node.names]
        else:
            continue
        yield from (found for found in map(resolve, names) if found)


@cache
def graph() -> Graph:
    return {
        name: frozenset(imports_of(ast.parse(path.read_text("utf-8")))) - {name} for name, path in sources().items()
    }


def assert_no_circle(arrows: Mapping[str, set[str] | frozenset[str]], where: str) -> None:
    try:
        list(TopologicalSorter(arrows).static_order())
    except CycleError as error:
        pytest.fail(f"import circle in {where}: {' <- '.join(error.args[1])}")


def test_no_relative_imports() -> None:
    """They would be invisible to the graph."""
    for name, path in sources().items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), name


def test_files_import_each_other_in_no_circle() -> None:
    assert len(graph()) > 200
    assert sum(map(len, graph().values())) > 500
    assert_no_circle(graph(), "the files")


@pytest.mark.parametrize(
    "folder",
    sorted(
        {".".join(parts[:depth]) for parts in (name.split(".") for name in sources()) for depth in range(len(parts))}
    ),
)
def test_neighbors_in_a_folder_import_each_other_in_no_circle(folder: str) -> None:
    """The files and folders in a folder can be ordered from the bottom up."""
    prefix = f"{folder}." if folder else ""

    def child(name: str) -> str:
        return name.removeprefix(prefix).partition(".")[0]

    arrows: dict[str, set[str]] = {}
    for name, imported in graph().items():
        if name.startswith(prefix) and not name.endswith("__init__"):
            inside = {child(other) for other in imported if other.startswith(prefix) and not other.endswith("__init__")}
            arrows.setdefault(child(name), set()).update(inside - {child(name)})
    assert_no_circle(arrows, folder or "the repository")


ALLOWED = {
    "mobileclip": {"mobileclip"},
    "app": {"app", "mobileclip"},
    "distill": {"distill", "mobileclip"},
    "export": {"export", "distill", "mobileclip"},
    "pocketclip": {"pocketclip", "mobileclip", "app"},
}
"""Package → packages of this project that its modules may import."""

APP_LAYERS = {"library": {"library"}, "ui": {"ui", "library"}, "cli": {"cli", "ui", "library"}}
"""Folder of `app` → folders of `app` that it may import. Files directly in `app` may be imported everywhere."""


def test_packages_import_downward_only() -> None:
    for name, imported in graph().items():
        for other in imported:
            assert other.split(".")[0] in ALLOWED[name.split(".")[0]], f"{name} imports {other}"


def test_the_library_imports_no_screen_and_no_command() -> None:
    checked = 0
    for name, imported in graph().items():
        top, _, rest = name.partition(".")
        layer = rest.split(".")[0]
        if top != "app" or layer not in APP_LAYERS:
            continue
        for other in imported:
            parts = other.split(".")
            if parts[0] == "app" and len(parts) > 2:
                assert parts[1] in APP_LAYERS[layer], f"{name} imports {other}"
                checked += 1
    assert checked > 100


def test_screens_import_the_host_and_not_the_app() -> None:
    screens = {name: imported for name, imported in graph().items() if name.startswith("app.ui.screens.")}
    assert screens
    for name, imported in screens.items():
        assert "app.ui.app" not in imported, name
    assert any("app.ui.host" in imported for imported in screens.values())


def test_screens_do_not_import_each_other() -> None:
    """Code that two screens need is in the kit, in the grid, or next to the screens' folders."""
    prefix = "app.ui.screens."
    checked = 0
    for name, imported in graph().items():
        if not name.startswith(prefix):
            continue
        screen = name.removeprefix(prefix).partition(".")[0]
        for other in imported:
            folder, _, file = other.removeprefix(prefix).partition(".")
            if other.startswith(prefix) and file:
                assert folder == screen, f"{name} imports {other}"
                checked += 1
    assert checked > 5


def test_the_kit_and_the_grid_import_no_screen() -> None:
    for name, imported in graph().items():
        if name.startswith(("app.ui.kit.", "app.ui.grid.")):
            assert not any(other.startswith(("app.ui.screens.", "app.ui.app")) for other in imported), name
        if name.startswith("app.ui.kit."):
            assert not any(other.startswith("app.ui.grid.") for other in imported), name


def test_tests_mirror_the_tree() -> None:
    """Each folder with tests is named after the folder of the code that it tests."""
    others = {"benchmarks", "faults", "gpu"}
    for path in sorted((REPOSITORY / "tests").rglob("test_*.py")):
        folder = path.parent.relative_to(REPOSITORY / "tests")
        if folder.parts and folder.parts[0] not in others:
            assert (REPOSITORY / folder).is_dir(), f"{path}: there is no folder {folder}"


def test_every_path_in_architecture_md_exists() -> None:
    text = (REPOSITORY / "ARCHITECTURE.md").read_text("utf-8")
    named = set(re.findall(r"`((?:mobileclip|distill|export|app|tests|pocketclip)/[\w./*<>-]*)`", text))
    assert len(named) > 40
    for name in sorted(named):
        if "<" in name:  # a pattern such as screens/<feature>/
            continue
        assert any(REPOSITORY.glob(name.rstrip("/"))), f"ARCHITECTURE.md names {name}, which does not exist"


def test_architecture_md_lists_every_folder() -> None:
    """Folders of folders, such as the screens, are described together."""
    text = (REPOSITORY / "ARCHITECTURE.md").read_text("utf-8")
    parents = ("mobileclip", "distill", "export", "app", "app/library", "app/ui")
    folders = {path.parent for parent in parents for path in (REPOSITORY / parent).glob("*/__init__.py")}
    names = {f"{folder.relative_to(REPOSITORY)}/" for folder in folders} - {"app/library/", "app/ui/"}
    assert len(names) > 25
    for name in sorted(names):
        assert f"`{name}`" in text, f"ARCHITECTURE.md doesn't mention {name}"


MOST_METHODS = 21
"""About what a reader can hold."""


def test_no_class_of_the_ui_has_too_many_methods() -> None:
    for path in sorted((REPOSITORY / "app" / "ui").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                methods = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
                assert len(methods) <= MOST_METHODS, (
                    f"{path.relative_to(REPOSITORY)}: {node.name} has {len(methods)} methods"
                )
