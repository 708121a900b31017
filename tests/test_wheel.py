"""The wheel contains everything that the light half needs, and its declared dependencies are enough."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("mobileclip", "distill", "export", "app", "pocketclip")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that no files are left in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "screenshots"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source / name)
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", out, source)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed wheel."""
    target = tmp_path_factory.mktemp("site")
    pip("install", "--no-deps", "--no-index", "--target", target, wheel)
    return target


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the declared dependencies, and the dependencies of those."""
    folder = tmp_path_factory.mktemp("dependencies")
    waiting = [Requirement(text) for text in requires("pocketclip") or ()]
    known: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        if requirement.name in known or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        known.add(requirement.name)
        try:
            found = distribution(requirement.name)
        except PackageNotFoundError:  # only needed on another platform
            continue
        waiting += [Requirement(text) for text in found.requires or ()]
        for name in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            link, target = folder / name, Path(str(found.locate_file(name)))
            if not link.exists():
                link.symlink_to(target)
    return folder


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_contains_all_packages_and_their_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} >= set(PACKAGES)
    for name in (
        "mobileclip/py.typed",
        "mobileclip/bundles/pocket/manifest.json",
        "mobileclip/towers/configs/pocket.toml",
        "app/ui/kit/icons.svg",
        "export/hub/catalog.toml",
        "distill/recipes/pocket/recipe.toml",
    ):
        assert name in names
    assert sum(name.endswith(".kv") for name in names) == len(list((REPOSITORY / "app" / "ui").rglob("*.kv")))
    metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    assert re.search(r"^Project-URL: Changelog", text, re.MULTILINE) and "Classifier: " in text


def test_the_installed_command_indexes_and_searches(site: Path, dependencies: Path, tmp_path: Path) -> None:
    from tests.app.cli.conftest import real_photos

    (tmp_path / "photos").mkdir()
    for photo in real_photos()[:2]:
        shutil.copy(photo, tmp_path / "photos")

    def run(*arguments: str) -> str:
        """Run Python without this environment's packages (-S), and outside the checkout."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment |= {"PYTHONPATH": f"{site}{os.pathsep}{dependencies}", "POCKETCLIP_HOME": str(tmp_path / "home")}
        command = [sys.executable, "-S", *arguments]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    command = str(site / "bin" / "pocketclip")
    assert str(site) in run("-c", "import app; print(app.__file__)")
    run(command, "index", "photos", "--quiet")
    hits = json.loads(run(command, "search", "a cat", "--json"))
    assert Path(hits[0]["path"]).name == "chelsea.png"
    assert "train" in run(command, "--help") and "pull" in run(command, "models", "--help")
    assert "clip-vit-b-32" in run(command, "models", "available")
    program = "import pocketclip; print(pocketclip.load('pocket').rank(['photos/chelsea.png'], 'a cat'))"
    assert run("-c", program)
