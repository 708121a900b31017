"""Exported towers compared with torch and with open_clip's own export: `python -m tests.benchmarks.export [MODEL]`.

All rows have the same random weights, and it is checked that they return the same vectors. Each row is the median of
several runs with one photo or text, in a separate process with one thread. Latency doesn't depend on training.
`torch.compile` needs a C++ compiler; if it fails, its row shows the error.
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
    """Return one smooth picture and one text."""
    torch.manual_seed(1)
    size = model.config.pixels.size
    picture = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 6), size=size, mode="bilinear")
    tokens = np.zeros((1, model.config.text.context_length), np.int32)
    tokens[0, :9] = 7
    tokens[0, 0], tokens[0, 9] = model.config.text.vocab_size - 2, model.config.text.vocab_size - 1
    return {"image": picture.numpy(), "text": tokens}


def build(name: str) -> CLIP:
    """Build a model with random weights, the same in every process."""
    torch.manual_seed(0)
    return create_model(name).eval()


def median(run: Callable[[], Any]) -> float:
    """Return the median in milliseconds, after three runs to warm up."""
    times = []
    for number in range(ROUNDS + 3):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
        if number < 3:
            times.clear()
    return float(np.median(times)) * 1000


def measure_torch(name: str, how: str) -> None:
    """Print the milliseconds of both towers in torch as JSON; to be run in a separate process."""
    torch.set_num_threads(THREADS)
    model = build(name) if how == "eager, as trained" else reparameterize(build(name))
    latencies = {}
    for side, batch in inputs(model).items():
        encode: Any = model.encode_image if side == "image" else model.encode_text
        encode = torch.compile(encode) if how == "torch.compile" else encode
        tensor = torch.from_numpy(batch)
        with torch.inference_mode():
            latencies[side] = median(lambda encode=encode, tensor=tensor: encode(tensor))
    print(json.dumps(latencies))


def torch_rows(name: str) -> list[Row]:
    """Measure eager torch, as trained and reparameterized, and compiled torch."""
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
    """Load the weights into open_clip's own model, and export its two encoders with `torch.onnx.export`."""
    import open_clip

    reference = open_clip.create_model(openclip_name(name)).eval()
    # open_clip stores some projections as timm's own classifier: the same matrix with another name.
    own = "visual.trunk.head.fc." if "visual.trunk.head.fc.weight" in reference.state_dict() else "visual.head.proj."
    _, weights = openclip.from_ours(model)
    reference.load_state_dict({key.replace("visual.head.proj.", own): value for key, value in weights.items()})
    files: dict[Side, bytes] = {}
    for side, batch in inputs(model).items():
        module = _OneSide(reference, side)
        tensor = torch.from_numpy(batch)
        stream = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, (tensor,), stream, opset_version=17, dynamo=False, input_names=["x"], output_names=["y"]
            )
        files[side] = stream.getvalue()
    return files


def openclip_name(name: str) -> str:
    """Return open_clip's name, such as `MobileCLIP2-S0` for `mobileclip2-s0`."""
    import open_clip

    return next(known for known in open_clip.list_models() if known.lower() == name)


def engine_rows(model: CLIP, name: str) -> list[Row]:
    """Measure ONNX from open_clip, then every format and precision that can be exported here."""
    batches, fused = inputs(model), reparameterize(model)
    with torch.inference_mode():
        expected = {
            "image": model.encode_image(torch.from_numpy(batches["image"])).numpy(),
            "text": model.encode_text(torch.from_numpy(batches["text"])).numpy(),
        }
    rows = [time_files("onnx, open_clip's own", "onnx", openclip_files(model, name), model, expected, SAME)]
    for engine in FORMATS:
        try:
            form = load_format(engine)
        except ExportError as error:
            rows.append((str(error), {}, {}))
            continue
        if form.interpreted:
            continue  # it doesn't run here, and the latency of its interpreter is meaningless
        converted = {side: form.convert(fused, side) for side in SIDES}
        for precision in (name for name in PRECISIONS if name in form.precisions):
            data = {side: form.quantize(converted[side], side, precision, [batches[side]]) for side in SIDES}
            rows.append(time_files(f"{engine} {precision}", engine, data, model, expected, COARSE))
    return rows


def time_files(
    title: str, engine: str, files: dict[Side, bytes], model: CLIP, expected: dict[str, np.ndarray], tolerance: float
) -> Row:
    """Run each file in a separate process, and check that it returns the same vectors as torch."""
    times: dict[Side, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for side, batch in inputs(model).items():
            file = Path(folder) / side
            file.write_bytes(files[side])
            with Child(engine, file, THREADS, model.config.pixels) as tower:
                vectors = tower(batch)
                difference = 1 - float((vectors / np.linalg.norm(vectors) * expected[side]).sum())
                if not difference <= tolerance:
                    raise SystemExit(f"{title}: the {side} tower returns other vectors (1 − cosine {difference:.4f})")
                times[side] = tower.latency(batch, ROUNDS)
    return title, times, {side: len(data) for side, data in files.items()}


def main(name: str) -> None:
    """Print a table, with latencies relative to eager torch with merged branches."""
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
