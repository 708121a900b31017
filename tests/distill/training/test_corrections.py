"""The way back: what a person decided in the gallery is trained on, as `pocketclip corrections export` writes it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from app.library.index.run import Options, index_folders
from app.library.labels.photo_tags import correct
from app.library.search.timeline import timeline
from app.library.store.connection import Store
from app.library.store.photos import list_photos
from mobileclip.checkpoints import load_checkpoint
from tests.app.library.conftest import FakeModel
from tests.distill.conftest import COLORS, run


def test_a_student_is_trained_on_corrections(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    home, mine = tmp_path / "home", tmp_path / "data"
    shutil.copytree(data, mine)
    pictures = mine / "colors" / "images"
    with Store(home / "index.db", create=True) as store:
        index_folders(store, FakeModel(), [str(pictures)], Options(decoders=1))
        decided = {}
        for photo in list_photos(store, timeline(store).ids)[:40]:
            color = list(COLORS)[int(Path(photo.path).stem) % 4]
            correct(store, photo.id, color, True)
            correct(store, photo.id, "black", False)
            decided[Path(photo.path).name] = color
    command = [sys.executable, "-m", "app", "corrections", "export", str(mine / "corrections.jsonl")]
    done = subprocess.run(
        command, env=os.environ | {"POCKETCLIP_HOME": str(home)}, capture_output=True, text=True, check=True
    )
    assert "40 photos written" in done.stderr

    recipe = tmp_path / "recipe"
    shutil.copytree(recipe_folder, recipe)
    text = (recipe / "recipe.toml").read_text()
    before, _, after = text.partition('[[photos]]\nname = "colors"')
    after = after[after.index("[[texts]]") :]
    own = '[[photos]]\nname = "mine"\nkind = "labels"\nfile = "corrections.jsonl"\n'
    (recipe / "recipe.toml").write_text(before + own + after)

    from distill.config import Recipe
    from distill.data.corpus import Corpus

    corpus = Corpus.read(Recipe.load(recipe / "recipe.toml"), mine)
    shown = {s.photo.path.name: s.texts for s in corpus.samples if s.photo.path.parent == pictures}
    assert set(shown) == set(decided)
    for name, color in decided.items():
        assert shown[name] and all(color in said and "black" not in said for said in shown[name])
    student = run(recipe, mine, tmp_path / "run", stages=[{"epochs": 1, "px": 48}])
    assert load_checkpoint(student).about["licence"] == "test"
