"""LiteRT and Core ML towers compared with float32 torch: `python -m tests.benchmarks.mobile FOLDER [CHECKPOINT]`.

FOLDER holds `captions.jsonl` (`file`, `caption`) and the photos in `images/`. 160 photos, evenly spread, are read, and
the last 60 are only used for calibration. CHECKPOINT is the `pocket` recipe's by default. Prints a table, asserts
nothing.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from export.coreml.convert import COREML
from export.formats import SIDES, Format, Side
from export.litert.convert import LITERT, LITERT_UINT8
from export.litert.tflite import gpu_fallbacks
from mobileclip.checkpoints import load_checkpoint
from mobileclip.photos import open_photo
from mobileclip.runtimes import Tower
from mobileclip.towers import reparameterize

MEASURED, CALIBRATING, INTERPRETED, TIMED = 100, 60, 8, 40


def main(folder: Path, checkpoint: Path) -> None:
    """Convert, quantize and measure everything once."""
    torch.set_num_threads(1)
    student = load_checkpoint(checkpoint)
    lines = [json.loads(line) for line in (folder / "captions.jsonl").read_text("utf-8").splitlines()]
    chosen = lines[:: max(1, len(lines) // (MEASURED + CALIBRATING))][: MEASURED + CALIBRATING]
    recipe = student.model.config.pixels
    photos = np.stack([recipe(open_photo(folder / "images" / Path(line["file"]).name)) for line in chosen])
    inputs: dict[Side, NDArray] = {"image": photos, "text": student.tokenizer([line["caption"] for line in chosen])}
    with torch.inference_mode():
        expected = {
            "image": student.model.encode_image(torch.from_numpy(photos[:MEASURED])).numpy(),
            "text": student.model.encode_text(torch.from_numpy(inputs["text"][:MEASURED])).numpy(),
        }
    fused = reparameterize(student.model)
    print("| file | bytes | cosine, median | 1st percentile | ms, 1 thread | not on GPU |\n|---|---|---|---|---|---|")
    for form in (LITERT, LITERT_UINT8, COREML):
        for side in SIDES if form is not LITERT_UINT8 else SIDES[:1]:
            data = form.convert(fused, side)
            for precision in form.precisions:
                calibration = [row[None] for row in inputs[side][MEASURED:]]
                small = form.quantize(data, side, precision, calibration)
                print(_row(form, small, side, precision, inputs[side], expected[side]), flush=True)


def _row(form: Format, data: bytes, side: Side, precision: str, inputs: NDArray, expected: NDArray) -> str:
    files = form.files(data, side, precision)
    name, size = next(iter(files)).partition("/")[0], sum(map(len, files.values()))
    tower = form.open(data, 1)
    count = INTERPRETED if form.interpreted else MEASURED
    vectors = tower(inputs[:count])
    cosines = (vectors * expected[:count]).sum(axis=1) / np.linalg.norm(vectors, axis=1)
    latency = "–" if form.interpreted else f"{_milliseconds(tower, inputs):.1f}"
    on_cpu = "–" if form is COREML else ", ".join(gpu_fallbacks(data)) or "nothing"
    quality = f"{np.median(cosines):.5f} | {np.percentile(cosines, 1):.5f}"
    return f"| {name} | {size:,} | {quality} | {latency} | {on_cpu} |"


def _milliseconds(tower: Tower, inputs: NDArray) -> float:
    times = []
    for row in inputs[:TIMED]:
        start = time.perf_counter()
        tower(row[None])
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


if __name__ == "__main__":
    arguments = [Path(argument) for argument in sys.argv[1:]]
    main(arguments[0], arguments[1] if len(arguments) > 1 else Path("distill/recipes/pocket"))
