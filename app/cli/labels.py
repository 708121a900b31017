"""`pocketclip labels`: list the labels that a model knows."""

from app.cli import output
from app.cli.common import AsJson, ModelName, Quiet, load_model, stop_without_labels


def labels(model: ModelName = "pocket", as_json: AsJson = False, quiet: Quiet = False) -> None:
    """List the labels that a model knows, by group.

    Labels in parentheses are search only: the model can't tell often enough
    when they are right, so no photo is tagged with them.

    [bold]Example[/bold]

    \b
    pocketclip labels --json
    """
    loaded = load_model(model)
    if as_json:
        output.show_json(
            [
                {
                    "label": label.name,
                    "group": label.group,
                    "prompts": list(label.prompts),
                    "threshold": label.threshold,
                    "slope": label.slope,
                    "positives": label.positives,
                    "least": label.least,
                    "search_only": label.search_only,
                    "prevalence": label.prevalence,
                    "implies": list(label.implies),
                }
                for label in loaded.labels
            ]
        )
    groups: dict[str, list[str]] = {}
    for label in () if as_json else loaded.labels:
        groups.setdefault(label.group, []).append(f"({label.name})" if label.search_only else label.name)
    for group, names in groups.items():
        print(f"{group}\t{', '.join(names)}")
    stop_without_labels(loaded, quiet)
