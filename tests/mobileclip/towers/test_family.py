"""Every model of the family trains, and `evaluate` takes its weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from distill.losses import info_nce
from mobileclip.checkpoints import Checkpoint, save_openclip
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import CLIP, ModelConfig, create_model
from tests.mobileclip.towers.conftest import randomize, tokens

SMALL = ["pocket", "mobileclip-s0", "mobileclip-s1", "mobileclip2-s2", "tinyclip-vit-8m-16", "clip-kd-vit-t-16"]


@pytest.mark.parametrize("name", SMALL)
def test_a_training_step_lowers_the_loss(name: str) -> None:
    """Gradients reach every parameter, and a few small steps on one batch lower its loss."""
    torch.manual_seed(0)
    model = create_model(name).train()
    config = model.config
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    size = 64 if "vit" not in name else config.pixels.size
    pixels = torch.rand(4, 3, size, size)
    ids = tokens(4, config.text.context_length, config.text.vocab_size)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(4):
        loss = info_nce(model.encode_image(pixels), model.encode_text(ids), model.logit_scale.exp(), torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        without = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
        assert not without
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_evaluate_takes_weights_of_another_project(tmp_path: Path) -> None:
    """Zero-shot classification and retrieval of an OpenCLIP folder, with a warning about cut texts."""
    torch.manual_seed(0)
    model = CLIP(ModelConfig.load("tinyclip-vit-8m-16"))
    randomize(model)
    save_openclip(Checkpoint(model, Tokenizer.load(b"a b\n"), b"a b\n", {}), tmp_path / "model")
    rows, labels = [], ["file,label"]
    for number in range(4):
        Image.fromarray(np.full((40, 60, 3), 60 * number, np.uint8)).save(tmp_path / f"{number}.png")
        rows.append({"file": f"{number}.png", "caption": "very " * 200 + f"{number}"})
        labels.append(f"{number}.png,{'dark' if number < 2 else 'light'}")
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "labels.csv").write_text("\n".join(labels) + "\n")
    import typer

    from app.cli import output as cli_output
    from distill.evaluate.cli import evaluate

    app = typer.Typer()
    app.command()(evaluate)
    cli_output.prepare()
    runner = CliRunner()
    shown = runner.invoke(app, [str(tmp_path / "model"), "--labels", str(tmp_path / "labels.csv"), "--json"])
    assert json.loads(shown.stdout)["n"] == 4
    shown = runner.invoke(app, [str(tmp_path / "model"), "--captions", str(tmp_path / "captions.jsonl"), "--json"])
    assert json.loads(shown.stdout)["n_captions"] == 4
    assert "4 of 4 texts were cut to the 75 tokens" in shown.stderr
