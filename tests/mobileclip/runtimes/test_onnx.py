import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mobileclip
from mobileclip import BundleError, EngineError, PhotoError
from mobileclip.runtimes import load_tower
from mobileclip.runtimes.onnx import Tower


@pytest.fixture
def bundle(tiny: Any, tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "tiny")


def test_tower_computes_what_numpy_computes(tiny: Any) -> None:
    tower = Tower(tiny.files["image.onnx"], threads=1)
    pixels = np.random.default_rng(0).normal(size=(5, 3, 8, 8))
    for batch in (pixels.astype(np.float32), pixels, pixels[::2]):  # cast and made contiguous as needed
        vectors = tower(batch)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, tiny.image_vectors(batch), atol=1e-5)


def test_errors_of_a_tower_are_one_line(tiny: Any, capfd: pytest.CaptureFixture[str]) -> None:
    tower = Tower(tiny.files["image.onnx"], threads=1)
    for wrong in (np.zeros((1, 3, 9, 9), np.float32), np.zeros((2, 2), np.float32)):
        with pytest.raises(EngineError) as caught:
            tower(wrong)
        assert "\n" not in str(caught.value)
    for data in (b"", b"not a model", tiny.files["image.onnx"][:300]):
        with pytest.raises(EngineError, match="cannot load"):
            Tower(data)
    with pytest.raises(ValueError, match="threads"):
        Tower(tiny.files["image.onnx"], threads=0)
    assert capfd.readouterr().err == ""


def test_unknown_engine_and_missing_onnxruntime(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="unknown engine 'abacus'"):
        load_tower("abacus", b"")
    real_import = builtins.__import__

    def absent(name: str, *args: Any, **options: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(f"No module named {name!r}")
        return real_import(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(EngineError, match="pip install onnxruntime"):
        load_tower("onnx", tiny.files["image.onnx"])


def test_a_model_has_the_settings_of_its_bundle(tiny: Any, bundle: Path) -> None:
    model = mobileclip.load(bundle, threads=1)
    assert (model.name, model.dim, model.logit_scale, model.recipe.size) == ("tiny", 4, 50.0, 8)
    assert [label.name for label in model.labels] == ["dog", "cat"]
    assert model.label_vectors.shape == (2, 4)
    assert model.tokenizer.encode("dog cat") == tiny.tokenizer.encode("dog cat")


def test_photos_become_unit_vectors_in_order(tiny: Any, bundle: Path, real_photos: Any, tmp_path: Path) -> None:
    model = mobileclip.load(bundle, threads=1)
    photos: list[Any] = []
    for name, photo in real_photos.items():
        photo.save(tmp_path / f"{name}.png")
        photos += [tmp_path / f"{name}.png", str(tmp_path / f"{name}.png"), photo]
    vectors = model.encode_images(iter(photos), batch_size=4)
    assert vectors.shape == (len(photos), 4) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    expected = tiny.image_vectors(np.stack([model.recipe(photo) for photo in real_photos.values()]))
    np.testing.assert_allclose(vectors, expected.repeat(3, axis=0), atol=1e-5)
    assert model.encode_images([]).shape == (0, 4)
    with pytest.raises(ValueError, match="batch_size"):
        model.encode_images(photos, batch_size=0)


def test_bad_photo_is_named(bundle: Path, tmp_path: Path) -> None:
    model = mobileclip.load(bundle, threads=1)
    (tmp_path / "bad.jpg").write_text("not a photo")
    with pytest.raises(PhotoError, match="not an image") as caught:
        model.encode_images([Image.new("RGB", (9, 9), "red"), tmp_path / "bad.jpg"])
    assert caught.value.path == str(tmp_path / "bad.jpg")


def test_pixels_of_another_shape_are_refused(bundle: Path) -> None:
    model = mobileclip.load(bundle, threads=1)
    assert model.encode_pixels(np.empty((0, 3, 8, 8), np.float32)).shape == (0, 4)
    with pytest.raises(ValueError, match="pixels must be"):
        model.encode_pixels(np.zeros((1, 8, 8, 3), np.float32))


def test_texts_do_not_depend_on_their_neighbors(tiny: Any, bundle: Path) -> None:
    model = mobileclip.load(bundle, threads=1)
    texts = ["dog", "", "a cat and a dog " * 9] * 50
    vectors = model.encode_texts(texts)
    assert vectors.shape == (150, 4)
    np.testing.assert_allclose(vectors, tiny.text_vectors(tiny.tokenizer(texts)), atol=1e-5)
    np.testing.assert_allclose(model.encode_texts("dog"), vectors[0], atol=1e-6)
    assert model.encode_texts([]).shape == (0, 4)


def test_searching_never_loads_the_image_tower(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[bytes] = []

    def counting(engine: str, data: bytes, **options: Any) -> Any:
        loaded.append(data)
        return load_tower(engine, data, **options)

    monkeypatch.setattr("mobileclip.model.load_tower", counting)
    model = mobileclip.load(bundle, threads=1)
    assert not loaded
    model.encode_texts(["dog"])
    model.encode_texts(["cat"])
    assert loaded == [(bundle / "text.onnx").read_bytes()]


def test_wrong_known_answers_stop_only_that_tower(tiny: Any, tmp_path: Path) -> None:
    wrong = np.eye(4, dtype=np.float32)[:3]
    tiny.files["known_answers.npz"] = tiny.answers(image_vectors=wrong)
    model = mobileclip.load(tiny.write(tmp_path / "wrong"), threads=1)
    model.encode_texts(["dog"])
    for _ in range(2):
        with pytest.raises(EngineError, match="image tower returns wrong known answers"):
            model.encode_images([Image.new("RGB", (9, 9), "red")])


def test_a_vector_of_nan_is_an_error(tiny: Any, bundle: Path) -> None:
    model = mobileclip.load(bundle, threads=1)
    with pytest.raises(EngineError, match="zero, NaN or infinite"):
        model.encode_pixels(np.full((1, 3, 8, 8), np.nan, np.float32))


def test_a_tower_with_the_wrong_width_is_an_error(tiny: Any, tmp_path: Path) -> None:
    tiny.fields["embed_dim"] = 6
    tiny.files["known_answers.npz"] = tiny.answers(
        image_vectors=np.ones((3, 6), np.float32), text_vectors=np.ones((3, 6), np.float32)
    )
    model = mobileclip.load(tiny.write(tmp_path / "wide"), threads=1)
    with pytest.raises(EngineError, match="text tower returned"):
        model.encode_texts(["dog"])


def test_tokenizer_and_labels_must_fit(tiny: Any, tmp_path: Path) -> None:
    tiny.fields["tokenizer"]["vocab_size"] += 1
    tiny.files["labels.toml"] = b"\xff"
    model = mobileclip.load(tiny.write(tmp_path / "tiny"), threads=1)
    with pytest.raises(BundleError, match="518 ids, not 519"):
        model.encode_texts(["dog"])
    with pytest.raises(BundleError, match="not UTF-8"):
        _ = model.labels


def test_fingerprint_covers_what_determines_vectors(tiny: Any, tmp_path: Path) -> None:
    def fingerprint() -> str:
        return mobileclip.load(tiny.write(tmp_path / "tiny")).fingerprint

    first = fingerprint()
    tiny.fields["version"] = "2"
    tiny.files["labels.toml"] += b"\n"
    assert fingerprint() == first
    seen = {first}
    tiny.fields["pixels"]["interpolation"] = "bilinear"
    seen.add(fingerprint())
    for name in ("merges.txt.gz", "image.onnx", "text.onnx"):
        tiny.files[name] += b"\n"
        seen.add(fingerprint())
    assert len(seen) == 5 and all(len(fingerprint) == 64 for fingerprint in seen)


def test_missing_bundle_and_engine(bundle: Path) -> None:
    with pytest.raises(BundleError, match="no model bundle 'no-such-model'"):
        mobileclip.load("no-such-model")
    with pytest.raises(EngineError, match="only for onnx"):
        mobileclip.load(bundle, engine="litert")


def test_search_imports_neither_pillow_nor_torch(bundle: Path) -> None:
    code = (
        "import sys, mobileclip\n"
        "assert not {'PIL', 'onnxruntime', 'numpy'} & set(sys.modules)\n"
        f"mobileclip.load({str(bundle)!r}, threads=1).encode_texts(['dog'])\n"
        "assert 'onnxruntime' in sys.modules\n"
        "assert not {'PIL', 'torch', 'onnx', 'regex', 'ftfy'} & set(sys.modules)\n"
    )
    root = Path(mobileclip.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
