"""The Python API, as someone uses it in the first five minutes."""

import inspect
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mobileclip
import pocketclip
from mobileclip.encoder import Encoder, InputError, Tag
from mobileclip.errors import AcceleratorWarning, PhotoError, PocketclipError
from mobileclip.extras import MissingExtraError, install_hint
from mobileclip.zeroshot import expand

REPOSITORY = Path(__file__).parents[2]
CHECKPOINT = REPOSITORY / "distill" / "recipes" / "pocket"


@pytest.fixture(scope="module")
def model() -> Encoder:
    return pocketclip.load("pocket")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "a.png"  # lossless, so that file and array are the same picture
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)).save(path)
    return path


def run(code: str, *blocked: str) -> "subprocess.CompletedProcess[str]":
    """Run a program in which the packages `blocked` can't be imported."""
    block = "import sys\n" + "".join(f"sys.modules[{name!r}] = None\n" for name in blocked)
    return subprocess.run(
        [sys.executable, "-c", block + code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )


def assert_unit(vectors: np.ndarray, shape: tuple[int, ...]) -> None:
    assert vectors.shape == shape and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("module", [pocketclip, mobileclip])
def test_all_is_what_is_visible(module: Any) -> None:
    assert dir(module) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name


def test_the_public_names() -> None:
    promised = {"load", "create_model", "load_checkpoint", "list_models", "Model", "Bundle", "__version__"}
    assert set(pocketclip.__all__) == promised
    assert pocketclip.__version__[0].isdigit()


def test_importing_is_light() -> None:
    heavy = ("torch", "onnxruntime", "PIL", "numpy")
    done = run(f"import pocketclip; assert not set({heavy!r}) & set(sys.modules), sys.modules.keys() & set({heavy!r})")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["pocket", Path("pocket"), str(REPOSITORY / "mobileclip/bundles/pocket")])
def test_load_takes_names_and_paths(name: Any) -> None:
    assert pocketclip.load(name).name == "pocket"


def test_load_takes_a_checkpoint(photo: Path, model: Encoder) -> None:
    for path in (CHECKPOINT, str(CHECKPOINT / "model.safetensors")):
        student = pocketclip.load(path)
        assert_unit(student.encode_images(photo), (512,))
        assert student.encode_texts("a dog") @ model.encode_texts("a dog") > 0.99
        assert student.logit_scale == pytest.approx(model.logit_scale, rel=1e-3)
        assert "512" in repr(student)
        with pytest.raises(PocketclipError, match="no labels"):
            student.tag(photo)


def test_one_photo_or_many(model: Encoder, photo: Path) -> None:
    picture = Image.open(photo)
    array = np.asarray(picture)
    expected = model.encode_images(photo)
    assert_unit(expected, (512,))
    many = [str(photo), photo, picture, array]
    for single in many:
        np.testing.assert_allclose(model.encode_images(single), expected, atol=1e-6)
    for photos in (many, tuple(many), iter(many)):
        vectors = model.encode_images(photos)
        assert_unit(vectors, (4, 512))
        np.testing.assert_allclose(vectors, np.tile(expected, (4, 1)), atol=1e-5)
    assert model.encode_images([]).shape == (0, 512)
    assert_unit(model.encode_images([photo]), (1, 512))
    assert_unit(model.encode_images(np.stack([array, array])), (2, 512))


@pytest.mark.parametrize("wrong", [None, 3, b"\xff\xd8", [None], [b"\xff\xd8"], [["a.jpg"]]])
def test_anything_but_a_photo_is_refused(model: Encoder, wrong: Any) -> None:
    with pytest.raises(InputError, match="a path, a PIL image or an array is needed"):
        model.encode_images(wrong)


def test_unreadable_photos_are_named(model: Encoder, photo: Path) -> None:
    with pytest.raises(PhotoError, match=r"no-such\.jpg: missing"):
        model.encode_images("no-such.jpg")
    with pytest.raises(PhotoError, match=r"no-such\.jpg: missing"):
        model.encode_images([photo, Path("no-such.jpg")])
    with pytest.raises(PhotoError, match="uint8"):
        model.encode_images(np.zeros((8, 8, 3), np.float32))
    with pytest.raises(PhotoError, match="uint8"):
        model.encode_images(np.zeros((8, 8, 4), np.uint8))


def test_one_text_or_many(model: Encoder) -> None:
    dog = model.encode_texts("a dog")
    assert_unit(dog, (512,))
    for texts in (["a dog", "a cat"], ("a dog", "a cat"), (text for text in ("a dog", "a cat"))):
        vectors = model.encode_texts(texts)
        assert_unit(vectors, (2, 512))
        np.testing.assert_allclose(vectors[0], dog, atol=1e-5)
    assert model.encode_texts([]).shape == (0, 512)
    assert_unit(model.encode_texts(""), (512,))


@pytest.mark.parametrize("wrong", [None, 3, b"a dog", [None], ["a dog", 3], [b"a dog"]])
def test_anything_but_a_text_is_refused(model: Encoder, wrong: Any) -> None:
    with pytest.raises(InputError, match=r"texts? "):
        model.encode_texts(wrong)


def test_a_typed_end_token_ends_the_text(model: Encoder) -> None:
    """As in open_clip, the text after it is ignored, without an error."""
    typed = model.encode_texts("a dog <end_of_text> and a red car")
    np.testing.assert_allclose(typed, model.encode_texts("a dog"), atol=1e-3)


def test_tag_and_rank(model: Encoder, photo: Path) -> None:
    skimage = pytest.importorskip("skimage.data")
    cat, cup = skimage.chelsea(), skimage.coffee()
    tags = model.tag(cat)
    assert tags and all(isinstance(tag, Tag) and 0.5 <= tag.probability <= 1 for tag in tags)
    assert "cat" in {tag.label for tag in tags}
    assert [tag.label for tag in model.tag([cat, cup])[0]] == [tag.label for tag in tags]
    assert model.tag([]) == []
    scores = model.rank([cat, cup], ["a cat", "a cup of coffee"])
    assert scores.shape == (2, 2) and scores.dtype == np.float32
    assert scores[0, 0] > scores[0, 1] and scores[1, 1] > scores[1, 0]
    assert model.rank(cat, ["a cat", "a cup"]).shape == (2,)
    assert model.rank([cat, cup], "a cat").shape == (2,)
    assert model.rank(cat, "a cat").shape == ()


def test_repr_shows_the_settings(model: Encoder) -> None:
    assert repr(model) == "<Model 'pocket': 512 dimensions, 260 px, engine='onnx', precision='int8-weights'>"


def test_uint8_pixels_are_normalized(model: Encoder) -> None:
    crops = np.random.default_rng(1).integers(0, 256, (2, 260, 260, 3), np.uint8)
    expected = model.encode_pixels(model.recipe.normalize_uint8(crops))
    np.testing.assert_array_equal(model.encode_pixels(crops), expected)
    with pytest.raises(ValueError, match="pixels must be"):
        model.encode_pixels(crops[:, :8])
    with pytest.raises(ValueError, match="pixels must be"):
        model.encode_pixels(crops.astype(np.float32))


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_below_one_are_refused(threads: int) -> None:
    with pytest.raises(ValueError, match="threads must be at least 1"):
        mobileclip.load(threads=threads)


def test_a_missing_accelerator_warns_and_uses_the_cpu() -> None:
    model = mobileclip.load(accelerator="gpu")
    with pytest.warns(AcceleratorWarning, match="no accelerator 'gpu' here"):
        vector = model.encode_texts("a dog")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = mobileclip.load(accelerator="auto").encode_texts("a dog")
    np.testing.assert_allclose(vector, expected, atol=1e-3)


def test_a_single_template_is_refused() -> None:
    with pytest.raises(TypeError, match="list of texts"):
        expand("cat", "a photo of {}.")


def test_list_models() -> None:
    names = pocketclip.list_models()
    assert names[0] == "pocket" and "mobileclip2-s0" in names and len(names) == len(set(names))
    assert pocketclip.list_models("mobileclip2-*") == sorted(name for name in names if name.startswith("mobileclip2-"))


def test_reparameterize_takes_what_load_checkpoint_returns(tmp_path: Path) -> None:
    from mobileclip.checkpoints import save_openclip

    for path in (CHECKPOINT, str(CHECKPOINT)):
        checkpoint = pocketclip.load_checkpoint(path)
    merged = mobileclip.reparameterize(checkpoint)
    assert type(merged) is type(checkpoint.model)
    assert pocketclip.create_model("pocket").config.embed_dim == 512
    for folder in (tmp_path / "a", str(tmp_path / "b")):
        try:
            save_openclip(checkpoint, folder)
        except PocketclipError as error:  # OpenCLIP doesn't support pocket's classifier, but the path was accepted
            assert "OpenCLIP" in str(error)


@pytest.mark.parametrize(
    "code",
    [
        "pocketclip.load('student.safetensors')",
        "pocketclip.create_model('pocket')",
        "pocketclip.load_checkpoint('x.pt')",
    ],
)
def test_a_missing_extra_is_one_line_that_says_what_to_install(code: str) -> None:
    done = run(f"import pocketclip; {code}", "torch", "safetensors", "timm")
    last = done.stderr.splitlines()[-1]
    assert "needs torch" in last or "needs safetensors" in last, done.stderr
    assert install_hint("train") in last and last.startswith("mobileclip.extras.MissingExtraError")
    assert issubclass(MissingExtraError, PocketclipError) and issubclass(MissingExtraError, ImportError)


def test_the_install_hint_fits_the_kind_of_installation(tmp_path: Path) -> None:
    assert install_hint("ui").endswith(f" -m pip install -e '{REPOSITORY}[ui]'")
    copy = tmp_path / "site-packages" / "mobileclip"
    copy.mkdir(parents=True)
    for name in ("__init__", "extras", "errors", "files"):
        (copy / f"{name}.py").write_bytes((REPOSITORY / "mobileclip" / f"{name}.py").read_bytes())
    code = "from mobileclip.extras import install_hint; print(install_hint('ui'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=copy.parent, capture_output=True, text=True, check=True, env={"PATH": ""}
    )
    assert done.stdout.strip().endswith("-m pip install 'pocketclip[ui]'")


def test_every_path_may_be_a_string_or_a_path() -> None:
    """Annotations of public functions: no parameter takes `Path` alone."""
    import mobileclip.bundle
    import mobileclip.checkpoints
    import mobileclip.localize
    import mobileclip.photos
    import mobileclip.torch_model
    import mobileclip.towers

    modules = ("bundle", "checkpoints", "files", "localize", "photos", "torch_model", "towers")
    checked = 0
    for module in (getattr(mobileclip, name) for name in modules):
        for name, item in vars(module).items():
            if (
                name not in module.__dict__.get("__all__", (name,))
                or name.startswith("_")
                or getattr(item, "__module__", "").partition(".")[0] != "mobileclip"
            ):
                continue
            if inspect.isfunction(item) or (inspect.isclass(item) and not issubclass(item, Exception)):
                for parameter in inspect.signature(item).parameters.values():
                    checked += 1
                    assert parameter.annotation not in (Path, "Path"), (module.__name__, name, parameter)
    assert checked > 50
