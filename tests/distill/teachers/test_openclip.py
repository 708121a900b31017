"""An open_clip teacher sees the pixels, and computes with the activation, that its weights were trained with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Normalize, Resize

from distill.config import OpenClipConfig
from distill.teachers.openclip import OpenClipTeacher, published_settings
from mobileclip.errors import PocketclipError

open_clip = pytest.importorskip("open_clip")

CLIP_PIXELS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), "bicubic", "shortest")
PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear", "shortest")
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", "squash")


@pytest.mark.parametrize(
    ("model", "tag", "pixels", "quick"),
    [
        ("ViT-B-32-quickgelu", "", CLIP_PIXELS, True),
        ("ViT-B-32", "openai", CLIP_PIXELS, True),
        ("ViT-B-32", "laion2b_s34b_b79k", CLIP_PIXELS, False),
        ("ViT-B/32", "datacomp_xl_s13b_b90k", CLIP_PIXELS, False),
        ("ViT-L-14", "dfn2b", CLIP_PIXELS, True),
        ("ViT-L-14", "laion2b_s32b_b82k", (*HALF[:3], "shortest"), False),
        ("MobileCLIP-S1", "", PLAIN, False),
        ("MobileCLIP-B", "datacompdr", PLAIN, False),
        ("MobileCLIP2-S4", "", (*CLIP_PIXELS[:2], "bilinear", "shortest"), False),
        ("ViT-B-16-SigLIP", "", HALF, False),
        ("ViT-H-14", "dfn5b", (*CLIP_PIXELS[:3], "squash"), True),
    ],
)
def test_what_the_weights_were_trained_with(model: str, tag: str, pixels: tuple[Any, ...], quick: bool) -> None:
    """Published facts; a file of weights doesn't hold them."""
    found = published_settings(OpenClipConfig(model, "weights.pt", tag))
    mean, std, interpolation, resize = pixels
    assert found["image_mean"] == pytest.approx(mean) and found["image_std"] == pytest.approx(std)
    assert (found["image_interpolation"], found["image_resize_mode"]) == (interpolation, resize)
    assert found["force_quick_gelu"] == quick


def test_weights_that_differ_need_a_tag() -> None:
    with pytest.raises(PocketclipError, match=r"pixels or activation; set `tag` to that of w\.pt, such as `openai`, `"):
        published_settings(OpenClipConfig("ViT-B-32", "w.pt"))
    with pytest.raises(PocketclipError, match=r"no weights with the tag 'opanai', only openai, laion400m_e31"):
        published_settings(OpenClipConfig("ViT-B-32", "w.pt", "opanai"))
    assert published_settings(OpenClipConfig("local-dir:/a/folder")) == {}
    for model in open_clip.list_models():
        for tag in open_clip.list_pretrained_tags_by_model(model):
            assert published_settings(OpenClipConfig(model, "w.pt", tag))["image_mean"] is not None


def test_a_teacher_from_a_file_is_the_model_that_was_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small model with two weights in open_clip's list, of which one has other pixels and QuickGELU."""
    shape = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 1, "width": 64, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
    }
    (tmp_path / "tiny-listed.json").write_text(json.dumps(shape))
    open_clip.add_model_config(tmp_path / "tiny-listed.json")
    entry = {"mean": PLAIN[0], "std": PLAIN[1], "interpolation": "bilinear", "resize_mode": "shortest"}
    listed = {"plain": entry, "clip": {**entry, "mean": CLIP_PIXELS[0], "std": CLIP_PIXELS[1], "quick_gelu": True}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-listed", listed)
    torch.manual_seed(1)
    model = open_clip.create_model("tiny-listed", force_quick_gelu=True).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value))
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))
    pixels = torch.from_numpy(np.array(CenterCrop(64)(Resize(64, InterpolationMode.BILINEAR)(photo))))
    pixels = Normalize(CLIP_PIXELS[0], CLIP_PIXELS[1])(pixels.permute(2, 0, 1).float() / 255)[None]
    with torch.inference_mode():
        wanted = model.encode_image(pixels, normalize=True).numpy()
        words = model.encode_text(open_clip.tokenize(["a dog"]), normalize=True).numpy()
    teacher = OpenClipTeacher(OpenClipConfig("tiny-listed", str(tmp_path / "weights.pt"), "clip"))
    np.testing.assert_allclose(teacher.encode_pictures([photo]), wanted, atol=1e-5)
    np.testing.assert_allclose(teacher.encode_texts(["a dog"]), words, atol=1e-5)
    assert teacher.logit_scale == pytest.approx(float(model.logit_scale.exp())), "raised to a power once"
    other = OpenClipTeacher(OpenClipConfig("tiny-listed", str(tmp_path / "weights.pt"), "plain", logit_scale=70))
    assert other.logit_scale == 70
    assert other.identity != teacher.identity
    assert np.abs(other.encode_pictures([photo]) - wanted).max() > 1e-3
    assert np.abs(other.encode_texts(["a dog"]) - words).max() > 1e-4
    with pytest.raises(PocketclipError, match="set `tag`"):
        OpenClipTeacher(OpenClipConfig("tiny-listed", str(tmp_path / "weights.pt")))
