"""Training speed compared with open_clip: `python -m tests.benchmarks.training [--px 160] [--rounds 5]`.

Both have the same trunk, projection and text tower, weights, batches, threads and optimizer, and InfoNCE as the only
loss: ours with `Trainer` and its log, theirs with `open_clip_train.train.train_one_epoch`. Both take turns in one
process per row. Each row has its own process because the allocator can be set only once: by default, or to keep freed
memory as `pocketclip train` does. Captions are as long as Flickr8k's, 10 to 20 of 77 tokens, or fill all 77. Prints a
table, asserts nothing.
"""

import argparse
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

BATCH, STEPS, CONTEXT = 64, 2, 77
ROWS = (
    ("fp32", "captions", "keep"),
    ("fp32", "full", "keep"),
    ("bf16", "captions", "keep"),
    ("fp32", "captions", "default"),
)


def main() -> None:
    """Measure all rows, or the one in the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--px", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one, arguments.px, arguments.rounds)))
        return
    title = f"Training steps on the towers of `pocket`, {arguments.px} px, batch {BATCH}, samples/s"
    table = Table(title=title, caption="medians of alternating rounds; loss: difference of both losses before training")
    for heading in ("precision", "texts", "freed memory", "pocketclip", "open_clip", "ratio", "loss"):
        table.add_column(heading, justify="left" if heading in ("precision", "texts", "freed memory") else "right")
    for row in ROWS:
        command = [sys.executable, "-m", "tests.benchmarks.training", "--px", str(arguments.px)]
        command += ["--rounds", str(arguments.rounds), "--one", *row]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        ours, theirs, difference = json.loads(done.stdout.splitlines()[-1])
        table.add_row(*row, f"{ours:.1f}", f"{theirs:.1f}", f"{ours / theirs:.2f}", f"{difference:.1e}")
    console = Console(width=110)
    console.print(f"{platform.platform()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    console.print(table)


def measure(precision: str, texts: str, memory: str, px: int, rounds: int) -> tuple[float, float, float]:
    """Return samples per second of ours and theirs, and the difference of their losses before training."""
    from distill.training.allocator import keep_freed_memory

    if memory == "keep":
        keep_freed_memory()
    pixels, tokens = batch(px, texts)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Ours(Path(folder), pixels, tokens, precision), OpenClip(pixels, tokens, precision)
        theirs.load(ours.model)
        seconds: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds + 1):  # the first warms up
            for side, times in zip((ours, theirs), seconds, strict=True):
                start = time.perf_counter()
                side.train()
                times.append(time.perf_counter() - start)
        difference = abs(ours.first_loss - theirs.first_loss)
        ours.close()
    rates = [BATCH * STEPS / statistics.median(times[1:]) for times in seconds]
    return rates[0], rates[1], difference


def batch(px: int, texts: str) -> tuple[Tensor, Tensor]:
    """Return random pixels and tokens; each text ends with the vocabulary's last id."""
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 16000, (BATCH, CONTEXT), generator=random)
    if texts == "captions":
        lengths = torch.randint(10, 21, (BATCH, 1), generator=random)
        tokens[torch.arange(CONTEXT) >= lengths] = 0
    last = (tokens != 0).sum(dim=1) - 1
    tokens[torch.arange(BATCH), last] = 16383
    return torch.randn(BATCH, 3, px, px, generator=random), tokens


class Ours:
    """`Trainer` on the same batch in every step."""

    def __init__(self, folder: Path, pixels: Tensor, tokens: Tensor, precision: str) -> None:
        import dataclasses

        from distill.batch import Batch
        from distill.config import LossConfig, OptimConfig, PhotoSource, Recipe, Stage
        from distill.training.trainer import Trainer
        from mobileclip.towers import CLIP, ModelConfig

        config = ModelConfig.load("pocket")
        config = dataclasses.replace(
            config,
            image=dataclasses.replace(config.image, dropout=0.0, hidden=0, classes=0),  # open_clip has neither
            text=dataclasses.replace(config.text, dropout=0.0, context_length=CONTEXT),
            pixels=dataclasses.replace(config.pixels, size=pixels.shape[-1]),
        )

        class Feed:
            widths: tuple[int, ...] = ()
            identity = "noise"

            def steps(self, epoch: int, stage: Stage) -> int:
                return 10**6

            def batches(self, epoch: int, stage: Stage, first: int) -> Iterator[Batch]:
                while True:
                    yield Batch(pixels, tokens, torch.arange(BATCH), ())

        recipe = Recipe(
            name="benchmark",
            model="pocket",
            merges="",
            photos=(PhotoSource("noise", "reinforced", ""),),
            stages=(Stage(1, pixels.shape[-1]),),
            loss=LossConfig({"affinity": 0.0, "feature": 0.0}, bank=0),
            optim=OptimConfig(batch=BATCH, ema=0.0, lr=1e-4, lr_trunk=1e-4, precision=precision),
            save_every=10**9,
        )
        torch.manual_seed(0)
        self.model = CLIP(config)
        self.run = Trainer(recipe, self.model, Feed(), folder).run()
        self.first_loss = float("nan")

    def train(self) -> None:
        """Take some steps."""
        for _ in range(STEPS):
            loss = next(self.run).losses["loss"]
            self.first_loss = loss if self.first_loss != self.first_loss else self.first_loss

    def close(self) -> None:
        """End the log."""
        self.run.close()


class OpenClip:
    """`train_one_epoch` on the same batch."""

    def __init__(self, pixels: Tensor, tokens: Tensor, precision: str) -> None:
        self.pixels, self.tokens, self.precision = pixels, tokens, precision
        self.first_loss = float("nan")

    def load(self, model: Any) -> None:
        """Build the same towers with the same weights, and open_clip_train's optimizer."""
        from open_clip import ClipLoss, CustomTextCLIP

        from mobileclip.layouts.openclip import from_ours

        logging.disable(logging.INFO)
        fields, weights = from_ours(model)
        config = fields["model_cfg"]
        del config["custom_text"]
        self.model = CustomTextCLIP(**config, output_dict=True)
        self.model.load_state_dict(weights)
        # As in open_clip_train.main: no weight decay for gains, biases and the scale.
        undecayed = [p for n, p in self.model.named_parameters() if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n]
        known = {id(p) for p in undecayed}
        decaying = [p for p in self.model.parameters() if id(p) not in known]
        groups = [{"params": undecayed, "weight_decay": 0.0}, {"params": decaying, "weight_decay": 0.05}]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.98))
        inner = ClipLoss()

        def loss(**inputs: Any) -> dict[str, Tensor]:
            losses: dict[str, Tensor] = inner(**inputs)
            if self.first_loss != self.first_loss:
                self.first_loss = float(losses["contrastive_loss"].detach())
            return losses

        self.loss = loss
        precision = {"fp32": "fp32", "bf16": "amp_bf16"}[self.precision]
        self.arguments = Namespace(
            device="cpu",
            precision=precision,
            accum_freq=1,
            skip_scheduler=True,
            distill=False,
            horovod=False,
            grad_clip_norm=1.0,
            log_every_n_steps=1,
            batch_size=BATCH,
            rank=0,
            local_rank=0,
            world_size=1,
            wandb=False,
        )

    def train(self) -> None:
        """Take some steps."""
        from open_clip_train.train import train_one_epoch

        class Batches(list[tuple[Tensor, Tensor]]):
            num_batches, num_samples = STEPS, STEPS * BATCH

        data = {"train": Namespace(dataloader=Batches([(self.pixels, self.tokens)] * STEPS), set_epoch=lambda _: None)}
        train_one_epoch(self.model, data, self.loss, 0, self.optimizer, None, None, None, self.arguments)


if __name__ == "__main__":
    main()
