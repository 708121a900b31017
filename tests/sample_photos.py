"""Get a dozen real photographs from freely licensed packages, to try the command line with.

`python tests/sample_photos.py FOLDER` downloads the wheels of scikit-image and scikit-learn with pip, extracts the
photographs and deletes the wheels. Neither package is installed.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PHOTOS = (
    "skimage/data/astronaut.png",
    "skimage/data/brick.png",
    "skimage/data/camera.png",
    "skimage/data/chelsea.png",
    "skimage/data/coffee.png",
    "skimage/data/coins.png",
    "skimage/data/grass.png",
    "skimage/data/hubble_deep_field.jpg",
    "skimage/data/moon.png",
    "skimage/data/motorcycle_left.png",
    "skimage/data/page.png",
    "skimage/data/rocket.jpg",
    "sklearn/datasets/images/china.jpg",
    "sklearn/datasets/images/flower.jpg",
)


def main(folder: Path) -> None:
    """Write the photographs to `folder`, all or none."""
    with tempfile.TemporaryDirectory() as name:
        wheels = Path(name)
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        options = ["download", "--no-deps", "--only-binary=:all:", "--dest", name]
        subprocess.run([*pip, *options, "scikit-image", "scikit-learn"], check=True)
        found = {}
        for wheel in wheels.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                found.update({n: archive.read(n) for n in archive.namelist() if n in PHOTOS})
    folder.mkdir(parents=True, exist_ok=True)
    for photo, data in found.items():
        (folder / Path(photo).name).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
