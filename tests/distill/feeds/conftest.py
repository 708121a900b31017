"""A reinforced data folder and its feed."""

import shutil
from pathlib import Path

import pytest

from distill.feeds.feed import Feed
from distill.reinforce.run import Reinforcer
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import ModelConfig
from tests.distill.feeds.common import reinforced_feed
from tests.distill.mixed import SOURCES, TinyTeacher, recipe


@pytest.fixture(scope="session")
def home(mixed_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `mixed_data`, with everything reinforced in `made`."""
    home = tmp_path_factory.mktemp("home") / "data"
    shutil.copytree(mixed_data, home)
    teachers = [TinyTeacher(0), TinyTeacher(1, dim=16, px=28)]
    Reinforcer(recipe(home, SOURCES), home, home / "made", teachers, 0).run(lambda *_: None)
    return home


@pytest.fixture
def config(mixed_model: Path) -> ModelConfig:
    return ModelConfig.load(str(mixed_model / "tiny.toml"))


@pytest.fixture
def feed(home: Path, config: ModelConfig, tokenizer: Tokenizer) -> Feed:
    return reinforced_feed(home, config, tokenizer)


@pytest.fixture(scope="session")
def tokenizer(mixed_model: Path) -> Tokenizer:
    return Tokenizer.load((mixed_model / "merges.txt.gz").read_bytes(), 16)
