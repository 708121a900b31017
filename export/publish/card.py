"""The model card: what the hub shows, from what the checkpoint says about itself."""

from __future__ import annotations

import json

from mobileclip.checkpoints import Checkpoint

LICENSES = ("mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "cc0-1.0")
"""Identifiers of the hub; any other license is described in words."""


def model_card(
    checkpoint: Checkpoint, repository: str, openclip: str = "", transformers: str = "", details: str = ""
) -> str:
    """Return the README of a repository, with the header that the hub reads.

    Args:
        checkpoint: the model; its `about` states name, license and provenance.
        repository: `USER/NAME` on the hub.
        openclip: why OpenCLIP can't load it; empty if it can.
        transformers: why transformers can't load it; empty if it can.
        details: a model card to append, such as that of a recipe.
    """
    about, model = checkpoint.about, checkpoint.model
    config = model.config
    text, pixels = config.text, config.pixels
    count = {side: sum(p.numel() for p in getattr(model, side).parameters()) for side in ("image", "text")}
    short = about["licence"].strip().lower()
    header = [f"license: {short}"] if short in LICENSES else ["license: other", f"license_name: {_quoted(repository)}"]
    library = "pocketclip" if openclip else "open_clip"
    rows = {
        "image tower": f"{config.image.trunk}, {count['image'] / 1e6:.1f} M parameters",
        "picture": f"{pixels.size} × {pixels.size} pixels, {pixels.interpolation}, "
        + ("resized without its proportions" if pixels.resize == "squash" else "shorter side resized, center cropped"),
        "text tower": f"{text.layers} layers of width {text.width}, {count['text'] / 1e6:.1f} M parameters",
        "texts": f"{text.context_length} tokens of a vocabulary of {text.vocab_size:,}",
        "embedding": f"{config.embed_dim} dimensions",
        "logit scale": f"{float(model.logit_scale.detach().exp()):.2f}",
    }
    lines = [
        "---",
        *header,
        f"library_name: {library}",
        "pipeline_tag: zero-shot-image-classification",
        "tags:",
        "- clip",
        f"- {library}",
        "---",
        "",
        f"# {about['name']}",
        "",
        "Photos and texts in one embedding space (CLIP).",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
        "",
        f"**License.** {about['licence']}",
        "",
        f"**Provenance.** {about['provenance'] or 'Not stated.'}",
        "",
        "## Use",
        "",
        *_use(repository, openclip, transformers),
    ]
    if details:
        # One title per page.
        lines += ["", "## Details", "", *(f"#{row}" if row.startswith("#") else row for row in details.splitlines())]
    return "\n".join(lines) + "\n"


def _use(repository: str, openclip: str, transformers: str) -> list[str]:
    ours = [
        "```python",
        "import pocketclip",
        'model = pocketclip.load("DOWNLOADED_FOLDER")',
        'model.encode_images("photo.jpg") @ model.encode_texts(["a dog", "a cat"]).T',
        "```",
    ]
    if openclip:
        return [*ours, "", f"OpenCLIP and transformers can't load it ({openclip})."]
    theirs = [
        "```python",
        "import open_clip",
        f'model, _, preprocess = open_clip.create_model_and_transforms("hf-hub:{repository}")',
        f'tokenizer = open_clip.get_tokenizer("hf-hub:{repository}")',
        "model.eval()",
        "```",
        "",
        "For a downloaded folder, write `local-dir:FOLDER` instead of `hf-hub:…`.",
        "",
    ]
    if transformers:
        return [*theirs, *ours, "", f"transformers can't load it ({transformers})."]
    return [
        *theirs,
        "```python",
        "from transformers import CLIPModel, CLIPProcessor",
        f'model = CLIPModel.from_pretrained("{repository}")',
        f'processor = CLIPProcessor.from_pretrained("{repository}")',
        "```",
        "",
        *ours,
    ]


def _quoted(text: str) -> str:
    """Quote a text for YAML, of which JSON is a part."""
    return json.dumps(text.rpartition("/")[2].lower(), ensure_ascii=False)
