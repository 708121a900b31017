"""`pocketclip publish`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mobileclip.extras import MissingExtraError

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; missing or empty.", show_default=False)]
Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        help="A file or folder of weights (ours, OpenCLIP's, OpenAI's, Apple's), or `pocket`.",
        show_default=False,
    ),
]
Repository = Annotated[str, typer.Option("--repo", metavar="USER/NAME", help="Where it will be on the hub.")]
Name = Annotated[str, typer.Option(metavar="NAME", help="Name of the model. Default: the checkpoint's.")]
License = Annotated[
    str, typer.Option("--license", metavar="TEXT", help="License of the weights. Default: the checkpoint's.")
]
Provenance = Annotated[
    str, typer.Option(metavar="TEXT", help="Where the weights come from. Default: what the checkpoint says.")
]
Config = Annotated[
    str | None, typer.Option(metavar="MODEL", help="Model name or .toml, for a checkpoint without a configuration.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors on stderr.")]


def publish(
    folder: Folder,
    checkpoint: Checkpoint,
    repo: Repository = "",
    name: Name = "",
    license_text: License = "",
    provenance: Provenance = "",
    config: Config = None,
    quiet: Quiet = False,
) -> None:
    """Write a checkpoint as a folder for the Hugging Face hub, with a model card.

    The folder holds safetensors, `open_clip_config.json`, the tokenizer, and a README with license, provenance and
    sizes. OpenCLIP loads it with the same vectors, which is checked first. A CLIP with a ViT and a causal text tower is
    also written for transformers' CLIPModel. A model that OpenCLIP doesn't support, such as `pocket`, is written in our
    own format, and the model card says so. Nothing is uploaded.

    [bold]Examples[/bold]

    \b
    pocketclip publish my-model runs/mine/student --repo me/my-model
    pocketclip publish s1 mobileclip_s1.pt --license "Apple's, see its repository"
    hf upload me/my-model my-model
    """
    try:
        from export.config import find_checkpoint
        from export.publish.folder import publish_checkpoint
    except ModuleNotFoundError as error:
        raise MissingExtraError("publishing", "train", error.name) from error
    written = publish_checkpoint(
        find_checkpoint(checkpoint),
        folder,
        model=config,
        name=name,
        repository=repo,
        license_text=license_text,
        provenance=provenance,
    )
    if quiet:
        return
    for library, reason in (("OpenCLIP", written.openclip), ("transformers", written.transformers)):
        print(f"{library} can't load it: {reason}" if reason else f"{library} loads it.")
    print(f"Written to {written.folder}. Upload it with: hf upload {repo or 'USER/NAME'} {written.folder}")
