"""Commands of `distill` and `export`, which `app` may not import, as entry points.

Only the command in use is loaded. The help lists all of them with `SUMMARIES`, so it needs no training library, and a
broken command doesn't affect others.
"""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer

from app.cli.common import guarded
from app.cli.style import Command, Group
from mobileclip.errors import PocketclipError

COMMANDS, MODELS = "pocketclip.commands", "pocketclip.models"
"""Groups of entry points: commands of `pocketclip` and of `pocketclip models`."""

SUMMARIES = {
    "available": "List the models that can be pulled.",
    "evaluate": "Measure a model on photos with captions, classes or tags.",
    "export": "Turn a checkpoint into a quantized, verified bundle for the app.",
    "publish": "Write a checkpoint as a folder for the Hugging Face hub, with a model card.",
    "pull": "Download a model from the Hugging Face hub, check it and make it a bundle.",
    "recipe": "List, explain, check and write training recipes.",
    "reinforce": "Precompute teacher embeddings of augmented photos, once for many students.",
    "report": "Recreate the report and the loss plot of a run, even while it is training.",
    "train": "Train a student to match its teachers.",
}
"""The first line of each command's help."""


class CommandError(PocketclipError):
    """A command that can't be loaded."""


class PluginGroup(Group):
    """A group that lists the entry points of `entry_group` after its own commands.

    An entry point is a function, or a `typer.Typer` with several commands.
    """

    entry_group = COMMANDS
    entry_panel: str | None = None

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        entries = entry_points(group=self.entry_group)
        self._entries = {entry.name: entry for entry in entries if entry.name not in self.commands}
        for name in sorted(self._entries):
            summary = SUMMARIES.get(name, "From another package.")
            self.add_command(Command(name, help=summary, rich_help_panel=self.entry_panel))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Load the command that `args` names; shell completion uses this too."""
        entry = self._entries.get(args[0]) if args else None
        if entry is not None:
            self.add_command(_load(entry))
        return super().resolve_command(ctx, args)


def styled(group: typer.Typer) -> typer.Typer:
    """Give each command of a group our errors, exit codes and help."""
    group.info.cls = group.info.cls or Group
    for command in group.registered_commands:
        command.cls = Command
        if command.callback is not None:
            command.callback = guarded(command.callback)
    top = group.registered_callback
    if top is not None and top.callback is not None:
        top.callback = guarded(top.callback)
    return group


def _load(entry: EntryPoint) -> Any:
    try:
        loaded = entry.load()
    except Exception as error:
        return _command(entry.name, guarded(_report(entry, error)), _TAKES_ANYTHING)
    if not isinstance(loaded, typer.Typer):
        return _command(entry.name, guarded(loaded))
    command: Any = typer.main.get_group(styled(loaded))
    command.name = entry.name
    return command


_TAKES_ANYTHING = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": list[str]()}


def _command(name: str, function: Callable[..., None], settings: dict[str, Any] | None = None) -> Any:
    single = typer.Typer(add_completion=False, rich_markup_mode="rich")
    single.command(name, cls=Command, context_settings=settings)(function)
    return typer.main.get_command(single)


def _report(entry: EntryPoint, error: Exception) -> Callable[[], None]:
    def command() -> None:
        hint = "; install it with: pip install 'pocketclip[train,export]'" if isinstance(error, ImportError) else ""
        raise CommandError(f"can't load `{entry.name}`: {error}{hint}")

    return command
