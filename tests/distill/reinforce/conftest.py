"""Reinforced data is made from a folder with every kind of source."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data(mixed_data: Path) -> Path:
    return mixed_data
