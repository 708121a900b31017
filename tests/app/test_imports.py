"""What may import what: the phone has the standard library, NumPy and Pillow, and nothing else that is compiled."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
WORKSTATION = {"torch", "torchvision", "timm", "open_clip", "transformers", "onnx", "distill", "export"}

# Workstation modules live in `mobileclip` too, beside the side that phones use.
TORCH_SIDE = ("mobileclip/towers/", "mobileclip/layouts/", "mobileclip/checkpoints.py", "mobileclip/torch_model.py")

BLOCKER = """
import importlib, sys

ALLOWED = set(sys.stdlib_module_names) | {"numpy", "PIL", "app", "mobileclip"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ImportError(f"{name} is not there on a phone")

sys.meta_path.insert(0, Blocker())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def modules(*folders: str) -> list[str]:
    found = []
    for folder in folders:
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            relative = path.relative_to(REPOSITORY)
            if not str(relative).startswith(TORCH_SIDE):
                found.append(".".join(relative.with_suffix("").parts).removesuffix(".__init__"))
    return found


def import_on_a_phone(*names: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", BLOCKER, *names]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_library_and_numpy_side_import_where_nothing_else_is_installed() -> None:
    names = modules("app/library", "mobileclip")
    assert {"app.library.index.run", "app.library.search.rank", "mobileclip.model", "mobileclip.runtimes.onnx"} <= set(
        names
    )
    result = import_on_a_phone(*names)
    assert result.returncode == 0, result.stderr


def test_the_models_of_the_screens_need_neither_a_window_nor_an_engine() -> None:
    parts = (
        "grid.lookup",
        "grid.pictures",
        "grid.rows",
        "grid.sections",
        "grid.selection",
        "kit.strings",
        "screens.search.conditions",
        "screens.search.suggestions",
        "session",
        "settings",
        "worker",
    )
    names = [name for name in modules("app/ui/screens") if name.endswith(".model")]
    names += [f"app.ui.{part}" for part in parts]
    assert {"app.ui.screens.search.model", "app.ui.screens.photo.model", "app.ui.session"} <= set(names)
    result = import_on_a_phone(*names)
    assert result.returncode == 0, result.stderr


NEUTRAL = {f"mobileclip.{name}" for name in ("errors", "extras", "files", "home", "lru")}
"""Modules of the model that have nothing to do with engines."""


def test_no_screen_names_an_engine() -> None:
    """A screen gets its model from whoever opens it; it names the errors alone, and the type for a checker."""
    for path in (REPOSITORY / "app" / "ui").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body = [ast.Pass()]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found = [node.module or ""]
            else:
                continue
            for name in found:
                drawing = {"PIL"} if path.name == "icons.py" else set()
                allowed = sys.stdlib_module_names | {"kivy", "numpy", "app", "mobileclip"} | drawing
                assert name.partition(".")[0] in allowed, path
                assert not name.startswith("mobileclip") or name in NEUTRAL, (path, name)


@pytest.mark.parametrize("name", ["platformdirs", "typer", "rich", "onnxruntime"])
def test_the_blocker_itself_works(name: str) -> None:
    result = import_on_a_phone(name)
    assert result.returncode != 0 and "is not there on a phone" in result.stderr


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_the_app_never_names_the_workstation_half() -> None:
    for path in (REPOSITORY / "app").rglob("*.py"):
        assert not imports(path) & WORKSTATION, path


def test_only_screens_and_platforms_name_kivy() -> None:
    for path in [*(REPOSITORY / "app").glob("*.py"), *(REPOSITORY / "app" / "library").rglob("*.py")]:
        assert "kivy" not in imports(path), path


def test_the_library_takes_paths_and_has_no_manners() -> None:
    for path in (REPOSITORY / "app" / "library").rglob("*.py"):
        assert not imports(path) & {"typer", "rich", "platformdirs", "onnxruntime"}, path


def test_rich_is_loaded_only_where_it_is_shown() -> None:
    for path in (REPOSITORY / "app").rglob("*.py"):
        assert "rich" not in imports(path, top_level=True), path


def test_only_one_module_downloads() -> None:
    for folder in ("app", "mobileclip", "distill", "export"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            if path != REPOSITORY / "export" / "hub" / "download.py":
                text = path.read_text(encoding="utf-8")
                assert "huggingface_hub" not in text and "urlopen" not in text and "urlretrieve" not in text, path


def test_nothing_that_runs_offline_names_the_network() -> None:
    network = {"socket", "ssl", "http", "urllib", "ftplib", "smtplib", "asyncio", "socketserver", "xmlrpc", "requests"}
    light = [*(REPOSITORY / "app").rglob("*.py"), *(REPOSITORY / "mobileclip").rglob("*.py")]
    for path in light:
        if not str(path.relative_to(REPOSITORY)).startswith(TORCH_SIDE):
            assert not imports(path) & network, path
