"""DataCompDR's tars as Apple lays them out, and tars of pictures as img2dataset writes them."""

import json
from pathlib import Path

import numpy as np

from tests.distill.mixed import encoded, jpeg, npz, write_tar

VIEWS, DIM = 2, 1536


def write_reinforced(path: Path, uids: range) -> None:
    """Write a tar of samples without picture and caption."""
    random = np.random.default_rng(uids.start)
    members: list[tuple[str, bytes]] = []
    for number in uids:
        uid = f"{number:032x}"
        views = [[[0, 0, 40 + number % 8, 40], [[0, 0.0], [3, -30.4532]]] for _ in range(VIEWS)]
        vectors = npz(
            image_emb=random.normal(size=(VIEWS, DIM)).astype(np.float32),
            text_emb=random.normal(size=(2, DIM)).astype(np.float32),
        )
        members += [
            (f"{uid}.url.txt", b"https://example.org/a.jpg"),
            (f"{uid}.syn.json", encoded({"syn_text": [f"synthetic {number}"]})),
            (f"{uid}.paug.json", encoded({"param_aug": json.dumps(views)})),
            (f"{uid}.npz", vectors),
            (f"{uid}.json", encoded({"uid": uid, "sha256": ""})),
        ]
    write_tar(path, members)


def write_pictures(path: Path, uids: list[int]) -> None:
    """Write a tar of numbered samples with the uid in `json`."""
    members: list[tuple[str, bytes]] = []
    for position, number in enumerate(uids):
        key = f"{position:09}"
        members += [
            (f"{key}.jpg", jpeg(number)),
            (f"{key}.json", encoded({"uid": f"{number:032x}", "caption": f"caption {number}"})),
            (f"{key}.txt", f"caption {number}".encode()),
        ]
    write_tar(path, members)
