"""For the tests of LiteRT and Core ML: towers with BatchNorm statistics, real photographs, and distances."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mobileclip.checkpoints import load_checkpoint
from mobileclip.towers import CLIP, ModelConfig, create_model, reparameterize

TINY = Path(__file__).parent / "tiny.toml"
POCKET = Path(__file__).parents[2] / "distill/recipes/pocket"


def tiny() -> CLIP:
    """A model of 32-pixel features whose BatchNorm is not neutral, not reparameterized."""
    torch.manual_seed(0)
    made = create_model(ModelConfig.load(TINY))
    with torch.no_grad():
        for name, buffer in made.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(torch.rand_like(buffer) * 0.3)
    return made.eval()


def pocket() -> CLIP:
    return load_checkpoint(POCKET).model


def inputs(model: CLIP) -> dict[str, NDArray]:
    """Normalized pixels of six crops of real photographs, and token ids of four texts of different lengths."""
    import skimage.data
    from PIL import Image

    photos = [Image.fromarray(getattr(skimage.data, name)()) for name in ("astronaut", "coffee", "chelsea")]
    photos += [photo.crop((0, 0, photo.width // 2, photo.height // 2)) for photo in photos]
    text = model.config.text
    tokens = np.zeros((4, text.context_length), np.int32)
    random = np.random.default_rng(0)
    for row, length in zip(tokens, (3, 5, 9, text.context_length), strict=True):
        row[:length] = random.integers(1, text.vocab_size - 2, length)
        row[0], row[length - 1] = text.vocab_size - 2, text.vocab_size - 1
    return {"image": np.stack([model.config.pixels(photo) for photo in photos]), "text": tokens}


def vectors(model: CLIP, side: str, batch: NDArray) -> NDArray:
    """What float32 torch gives, by the model as it was trained."""
    with torch.inference_mode():
        given = torch.from_numpy(batch)
        return (model.encode_image(given) if side == "image" else model.encode_text(given)).numpy()


def fused(model: CLIP) -> CLIP:
    return reparameterize(model)


def cosine(found: NDArray, expected: NDArray) -> float:
    """The lowest over the rows."""
    return float(((found * expected).sum(axis=1) / np.linalg.norm(found, axis=1)).min())
