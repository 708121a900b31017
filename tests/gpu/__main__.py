"""Training on one GPU, in at most ten minutes: `python -m tests.gpu [--json FILE]`.

Measures each way to train in a separate process, so that one failure doesn't end the others: float32, bfloat16,
torch.compile, DDP and FSDP2 as the only process, and gradient caching at a batch of 32,768. Of each it reports samples
per second, peak memory, and how well the loss and the gradient of a small batch agree with the CPU in float32. The
comparison is in float32 too, except that of bfloat16, where only the loss must agree. Prints a table, and writes the
figures as JSON. Exit code 1: a part failed or doesn't agree.

`--device cpu --tiny` runs the same code anywhere, on a tiny student.
"""

import argparse
import dataclasses
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from distill.batch import Batch
from distill.config import LossConfig, OptimConfig, PhotoSource, Recipe, Stage
from distill.distributed import joined_processes
from distill.losses import TeacherEmbeddings
from distill.training.gradient_cache import backward_in_parts
from distill.training.parallel import Parallel, gather_state
from distill.training.task import DistillTask
from distill.training.trainer import Trainer
from mobileclip.errors import ConfigError, one_line
from mobileclip.towers import CLIP, ModelConfig

WARMUP, STEPS = 2, 5
TEXTS = 0.25
"""Texts without photos in a batch, as a share of its photos."""


@dataclass(frozen=True)
class Part:
    """A way to train, and how closely its first step must agree with the CPU.

    Attributes:
        optim: settings that differ from the defaults.
        batch: photos per step.
        limit: seconds until it is given up.
        joined: whether torchrun's environment is imitated.
        compared: the precision of the comparison. Gradients of random weights differ too much in bfloat16.
    """

    optim: dict[str, Any]
    batch: int = 256
    limit: float = 60
    joined: bool = False
    compared: str = "fp32"

    @property
    def tolerance(self) -> tuple[float, float]:
        """The largest relative difference of the loss, and the smallest cosine of the gradients."""
        return (1e-3, 0.999) if self.compared == "fp32" else (5e-2, -1.0)


PARTS = {
    "fp32": Part({"precision": "fp32"}),
    "bf16": Part({"precision": "bf16"}, compared="bf16"),
    "compile": Part({"precision": "bf16", "compile": True}, limit=240),
    "ddp": Part({"precision": "bf16"}, joined=True),
    "fsdp": Part({"precision": "bf16", "strategy": "fsdp"}, joined=True),
    "cache": Part({"precision": "bf16", "micro_batch": 256}, batch=32_768, limit=120),
}


def main() -> None:
    """Measure all parts, or the one in the arguments."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default: cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny student and small batches, to try the script")
    parser.add_argument("--parts", metavar="LIST", default=",".join(PARTS), help=f"default: {','.join(PARTS)}")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures here; default: only the table")
    parser.add_argument("--limit", metavar="SECONDS", type=float, help="of each part; default: its own")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.parts.split(",")) - PARTS.keys()):
        parser.error(f"no part is called {unknown[0]}")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("tests.gpu: this machine has no CUDA; --device cpu --tiny tries the script without")
    if arguments.one:
        print(json.dumps(measure(PARTS[arguments.one], arguments.device, arguments.tiny)))
        return
    results = {name: measure_apart(name, arguments) for name in arguments.parts.split(",")}
    show(results, arguments.device)
    if arguments.json:
        machine = {"device": device_name(arguments.device), "torch": torch.__version__, "tiny": arguments.tiny}
        arguments.json.write_text(json.dumps({**machine, "parts": results}, indent=1) + "\n")
    sys.exit(any("error" in result or not result["agrees"] for result in results.values()))


def measure_apart(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure a part in a separate process; a failure is a result with `error`."""
    command = [sys.executable, "-m", "tests.gpu", "--one", name, "--device", arguments.device]
    command += ["--tiny"] if arguments.tiny else []
    limit = arguments.limit or PARTS[name].limit
    print(f"{name} …", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {limit:g} seconds"}
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return {"error": one_line(lines[-1] if lines else f"exit code {done.returncode}")}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def show(results: dict[str, dict[str, Any]], device: str) -> None:
    """Print the table."""
    table = Table(title=f"Training steps on {device_name(device)}")
    for heading in (
        "part",
        "batch",
        "samples/s",
        "peak memory",
        "compared in",
        "loss differs by",
        "cosine of gradients",
        "agrees",
    ):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for name, result in results.items():
        if "error" in result:
            table.add_row(name, f"failed: {result['error']}"[:60])
            continue
        memory = f"{result['memory'] / 2**20:,.0f} MiB"
        row = (f"{result['batch']:,}", f"{result['samples_per_second']:,.1f}", memory)
        agreement = (result["compared_in"], f"{result['loss_difference']:.1e}", f"{result['gradient_cosine']:.5f}")
        table.add_row(name, *row, *agreement, "yes" if result["agrees"] else "NO")
    Console(width=120).print(table)


def device_name(device: str) -> str:
    """The name of the card, or of the processor's kind."""
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU ({platform.machine()}, {os.cpu_count()} cores)"


def measure(part: Part, device: str, tiny: bool) -> dict[str, Any]:
    """Measure a part in this process."""
    torch.backends.cudnn.allow_tf32 = False  # the default of convolutions, too coarse for the comparison in float32
    if part.joined:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    config = student(tiny)
    settings = dict(part.optim)
    count = part.batch
    if tiny:
        count = 64 if settings.get("micro_batch") else 16
        settings |= {"micro_batch": 8} if settings.get("micro_batch") else {}
    with joined_processes(device) as place:
        loss, cosine = agreement(config, {**settings, "precision": part.compared}, place, tiny)
        rate, memory = speed(config, OptimConfig(batch=count, ema=0.0, device=device, **settings), place)
    most, least = part.tolerance
    return {
        "batch": count,
        "samples_per_second": round(rate, 1),
        "memory": memory,
        "compared_in": part.compared,
        "loss_difference": loss,
        "gradient_cosine": cosine,
        "agrees": loss <= most and cosine >= least,
    }


def student(tiny: bool) -> ModelConfig:
    """The architecture of `pocket` at 160 px, without dropout, which would differ between devices; or a tiny one."""
    config = ModelConfig.load("pocket")
    image, text, pixels = config.image, config.text, config.pixels
    image = dataclasses.replace(image, dropout=0.0, hidden=0, attention=None, classes=0)
    text = dataclasses.replace(text, dropout=0.0)
    pixels = dataclasses.replace(pixels, size=160)
    if tiny:
        image = dataclasses.replace(image, trunk="test_efficientnet", options={})
        text = dataclasses.replace(text, vocab_size=600, width=32, heads=2, layers=2, context_length=16)
        pixels = dataclasses.replace(pixels, size=32)
    return dataclasses.replace(config, image=image, text=text, pixels=pixels, parameters={})


def make_batch(config: ModelConfig, count: int, device: torch.device) -> Batch:
    """Noise with one teacher, made on the device."""
    random = torch.Generator(device).manual_seed(0)
    texts, text = count + round(TEXTS * count), config.text
    tokens = torch.randint(1, text.vocab_size - 1, (texts, text.context_length), generator=random, device=device)
    lengths = torch.randint(5, text.context_length, (texts, 1), generator=random, device=device)
    places = torch.arange(text.context_length, device=device)
    tokens[places == lengths] = text.vocab_size - 1
    tokens[places > lengths] = 0

    def unit(rows: int) -> Tensor:
        return F.normalize(torch.randn(rows, config.embed_dim, generator=random, device=device), dim=-1)

    side = config.pixels.size
    return Batch(
        torch.randn(count, 3, side, side, generator=random, device=device),
        tokens,
        torch.arange(count, device=device),
        (TeacherEmbeddings(unit(count), unit(texts), 50.0),),
        (TeacherEmbeddings(unit(256), unit(256), 50.0),),
        tried=count,
    )


def agreement(config: ModelConfig, optim: dict[str, Any], device: torch.device, tiny: bool) -> tuple[float, float]:
    """Return the relative difference of the loss, and the cosine of the gradients, of this way and the CPU's float32.

    Both use gradient caching if the part does, because it makes BatchNorm see other batches.
    """
    from distill.training.memory import compile_towers

    batch = make_batch(config, 8 if tiny else 32, torch.device("cpu"))
    micro = (4 if tiny else 16) if optim.get("micro_batch") else 0
    torch.manual_seed(0)
    weights = {name: value.clone() for name, value in CLIP(config).state_dict().items()}
    losses, gradients = [], []
    for place, precision in ((torch.device("cpu"), "fp32"), (device, optim["precision"])):
        first = not losses
        model = CLIP(config)
        model.load_state_dict(weights)
        task = DistillTask(model, LossConfig(), (config.embed_dim,), precision).to(place).train()
        if optim.get("compile") and not first:
            compile_towers(model)
        # The CPU's has no process group: it is the plain model.
        parallel = Parallel(task, optim.get("strategy", "ddp")) if not first else Plain(task)
        moved = batch.to(place)
        if micro:
            values = backward_in_parts(parallel, moved, micro, (0,))
        else:
            values = parallel(moved)
            values["loss"].backward()
        losses.append(float(values["loss"].detach()))
        found = {name: gather_state(p.grad) for name, p in task.named_parameters() if p.grad is not None}
        gradients.append(torch.cat([found[name].flatten().double() for name in sorted(found)]))
    return abs(losses[1] / losses[0] - 1), float(F.cosine_similarity(*gradients, dim=0))


class Plain(Parallel):
    """A task without other processes."""

    def __init__(self, task: DistillTask) -> None:
        self.task, self.module, self.sharded = task, task, []


class NoiseFeed:
    """The same batch in every step."""

    identity = "noise"

    def __init__(self, batch: Batch, width: int) -> None:
        self.batch, self.widths = batch, (width,)

    def steps(self, epoch: int, stage: Stage) -> int:
        """Return a number that is never reached."""
        return 10**6

    def batches(self, epoch: int, stage: Stage, first: int) -> Iterator[Batch]:
        """Yield the batch again and again."""
        while True:
            yield self.batch


def speed(config: ModelConfig, optim: OptimConfig, device: torch.device) -> tuple[float, int]:
    """Return samples per second and the peak of memory in bytes."""
    recipe = Recipe(
        name="gpu",
        model="pocket",
        merges="",
        photos=(PhotoSource("noise", "reinforced", ""),),
        stages=(Stage(1, config.pixels.size),),
        optim=optim,
        save_every=10**9,
    )
    batch = make_batch(config, optim.batch, device)
    warmup, steps = (1, 1) if optim.micro_batch else (WARMUP, STEPS)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        trainer = Trainer(recipe, CLIP(config), NoiseFeed(batch, config.embed_dim), Path(folder), device)
        run = trainer.run()
        for _ in range(warmup):
            next(run)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        for _ in range(steps):
            next(run)  # reads the loss, so the GPU has finished
        seconds = time.perf_counter() - start
        run.close()
    return optim.batch * steps / seconds, peak_memory(device)


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that were allocated: on the GPU since the warmup, on a CPU by the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        sys.exit(f"tests.gpu: {error}")
