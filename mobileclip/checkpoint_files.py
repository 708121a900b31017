"""File names of checkpoints, for code that runs without torch."""

from pathlib import Path

from mobileclip.files import PathLike

WEIGHTS = "model.safetensors"
"""Our own weights."""
WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
"""Suffixes of files that `load_checkpoint` reads."""
MERGES = "merges.txt.gz"
OPENCLIP_CONFIG = "open_clip_config.json"
OPENCLIP_SAFETENSORS = ("open_clip_model.safetensors", WEIGHTS)
OPENCLIP_WEIGHTS = (*OPENCLIP_SAFETENSORS, "open_clip_pytorch_model.bin")
"""Names of OpenCLIP's weights, in order of preference."""


def find_weights(folder: PathLike) -> Path | None:
    """Return the file of weights of a folder: ours, OpenCLIP's or a training run's; None if there are none."""
    folder = Path(folder)
    names = OPENCLIP_WEIGHTS if (folder / OPENCLIP_CONFIG).is_file() else (WEIGHTS,)
    return next((folder / name for name in names if (folder / name).is_file()), None) or find_in_run(folder)


def find_in_run(folder: PathLike) -> Path | None:
    """Return the weights in the folder of a training run: the student's, or a newer checkpoint of a run that continues.

    Args:
        folder: any folder; None is returned if it isn't a run's.
    """
    folder = Path(folder)
    student = folder / "student" / WEIGHTS
    newest = max((folder / "checkpoints").glob("step-????????.pt"), default=None)
    if newest is None or not student.is_file():
        return student if student.is_file() else newest
    return newest if newest.stat().st_mtime_ns > student.stat().st_mtime_ns else student
