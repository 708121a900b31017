"""Settings given on the command line: `--set optim.lr=3e-4`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from typing import Any

import typer


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Parse every `--set` into what `Recipe.load` takes as overrides; see `parse_setting`."""
    return dict(parse_setting(text) for text in texts)


def parse_setting(text: str) -> tuple[str, Any]:
    """Parse `name=value`. The value is TOML, or plain text if it isn't valid TOML.

    Raises:
        typer.BadParameter: there is no `=` or no name.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise typer.BadParameter(f"--set {text}: write name=value")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value
