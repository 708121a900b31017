"""Exported towers against torch and against open_clip's own export: `python -m tests.benchmarks.export [MODEL]`.

The same weights, random, in every row, so all rows must give the same vectors: that is checked. One photo or one text
at a time, each row in a process of its own with one thread; the median of the runs. Latencies of random weights are
those of trained ones. `torch.compile` needs a C++ compiler; where it cannot compile, its row says so.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from export.formats import FORMATS, SIDES, ExportError, Side, load_format
from export.measure.child import Child
from mobileclip.layouts import openclip
from mobileclip.towers import CLIP, create_model, reparameterize

MODEL, ROUNDS, THREADS = "mobileclip2-s0", 15, 1
TORCH, SAME, COARSE = "--torch", 1e-4, 0.1
PRECISIONS = ("fp32", "fp16-weights", "int8-weights", "int8")
Row = tuple[str, dict[Side, float], dict[Side, int]]


def inputs(model: CLIP) -> dict[Side, np.ndarray]:
    """One smooth picture and one text."""
    torch.manual_seed(1)
    size = model.config.pixels.size
    picture = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 6), size=size, mode="bilinear")
    tokens = np.zeros((1, model.config.text.context_length), np.int32)
    tokens[0, :9] = 7
    tokens[0, 0], tokens[0, 9] = model.config.text.vocab_size - 2, model.config.text.vocab_size - 1
    return {"image": picture.numpy(), "text": tokens}


def build(name: str) -> CLIP:
    """Fresh weights, the same in every process."""
    torch.manual_seed(0)
    return create_model(name).eval()


def median(run: Callable[[], Any]) -> float:
    """Milliseconds, after three runs that do not count."""
    times = []
    for number in range(ROUNDS + 3):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
        if number < 3:
            times.clear()
    return float(np.median(times)) * 1000


def measure_torch(name: str, how: str) -> None:
    """Print the milliseconds of both towers by torch itself, as JSON; run in a process of its own."""
    torch.set_num_threads(THREADS)
    model = build(name) if how == "eager, as trained" else reparameterize(build(name))
    found = {}
    for side, given in inputs(model).items():
        encode: Any = model.encode_image if side == "image" else model.encode_text
        encode = torch.compile(encode) if how == "torch.compile" else encode
        tensor = torch.from_numpy(given)
        with torch.inference_mode():
            found[side] = median(lambda encode=encode, tensor=tensor: encode(tensor))
    print(json.dumps(found))


def torch_rows(name: str) -> list[Row]:
    """Eager torch as trained and reparameterized, and compiled."""
    rows: list[Row] = []
    for how in ("eager, as trained", "eager", "torch.compile"):
        command = [sys.executable, "-m", "tests.benchmarks.export", name, TORCH, how]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1][:60]
            rows.append((f"torch, {how}: {reason}", {}, {}))
        else:
            rows.append((f"torch, {how}", json.loads(done.stdout.splitlines()[-1]), {}))
    return rows


class _OneSide(torch.nn.Module):
    """One encoder of an open_clip model."""

    def __init__(self, reference: Any, side: Side) -> None:
        super().__init__()
        self.reference, self.side = reference, side

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        encode = self.reference.encode_image if self.side == "image" else self.reference.encode_text
        vectors: torch.Tensor = encode(x, normalize=True)
        return vectors


def openclip_files(model: CLIP, name: str) -> dict[Side, bytes]:
    """The same weights in open_clip's own model, exported as people do: `torch.onnx.export` of its two encoders."""
    import open_clip

    reference = open_clip.create_model(openclip_name(name)).eval()
    # Where open_clip keeps the projection as timm's own classifier, it is the same matrix by another name.
    own = "visual.trunk.head.fc." if "visual.trunk.head.fc.weight" in reference.state_dict() else "visual.head.proj."
    weights = openclip.from_ours(model)
    reference.load_state_dict({key.replace("visual.head.proj.", own): value for key, value in weights.items()})
    files: dict[Side, bytes] = {}
    for side, given in inputs(model).items():
        module = _OneSide(reference, side)
        tensor = torch.from_numpy(given)
        stream = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, (tensor,), stream, opset_version=17, dynamo=False, input_names=["x"], output_names=["y"]
            )
        files[side] = stream.getvalue()
    return files


def openclip_name(name: str) -> str:
    """`mobileclip2-s0` is open_clip's `MobileCLIP2-S0`."""
    import open_clip

    return next(known for known in open_clip.list_models() if known.lower() == name)


def engine_rows(model: CLIP, name: str) -> list[Row]:
    """ONNX by open_clip, then every format and precision that can be made here."""
    given, fused = inputs(model), reparameterize(model)
    with torch.inference_mode():
        exact = {
            "image": model.encode_image(torch.from_numpy(given["image"])).numpy(),
            "text": model.encode_text(torch.from_numpy(given["text"])).numpy(),
        }
    rows = [time_files("onnx, open_clip's own", "onnx", openclip_files(model, name), model, exact, SAME)]
    for engine in FORMATS:
        try:
            made_by = load_format(engine)
        except ExportError as error:
            rows.append((str(error), {}, {}))
            continue
        if made_by.interpreted:
            continue  # it does not run here: its interpreter's latency says nothing
        converted = {side: made_by.convert(fused, side) for side in SIDES}
        for precision in (name for name in PRECISIONS if name in made_by.precisions):
            data = {side: made_by.quantize(converted[side], side, precision, [given[side]]) for side in SIDES}
            rows.append(time_files(f"{engine} {precision}", engine, data, model, exact, COARSE))
    return rows


def time_files(
    title: str, engine: str, files: dict[Side, bytes], model: CLIP, exact: dict[str, np.ndarray], far: float
) -> Row:
    """Run each file in a process of its own, and see that it gives the vectors that torch gives."""
    times: dict[Side, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for side, given in inputs(model).items():
            file = Path(folder) / side
            file.write_bytes(files[side])
            with Child(engine, file, THREADS, model.config.pixels) as tower:
                vectors = tower(given)
                off = 1 - float((vectors / np.linalg.norm(vectors) * exact[side]).sum())
                if not off <= far:
                    raise SystemExit(f"{title}: the {side} tower gives other vectors (1 − cosine {off:.4f})")
                times[side] = tower.latency(given, ROUNDS)
    return title, times, {side: len(data) for side, data in files.items()}


def main(name: str) -> None:
    """Print a table; ratios are to eager torch with merged branches."""
    rows = [*torch_rows(name), *engine_rows(build(name), name)]
    base = next(times for title, times, _ in rows if title == "torch, eager")
    table = Table(title=f"{name}, random weights, one at a time, {THREADS} thread")
    for number, heading in enumerate(("", "image ms", "× torch", "text ms", "× torch", "image MB", "text MB")):
        table.add_column(heading, justify="right" if number else "left")
    for title, times, sizes in rows:
        cells = [f"{times[side]:.1f} {times[side] / base[side]:.2f}" if side in times else "– –" for side in SIDES]
        mega = [f"{sizes[side] / 1e6:.1f}" if side in sizes else "–" for side in SIDES]
        table.add_row(title, *(" ".join(cells).split()), *mega)
    Console(width=120).print(table)


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else MODEL
    if sys.argv[2:3] == [TORCH]:
        measure_torch(chosen, sys.argv[3])
    else:
        main(chosen)
