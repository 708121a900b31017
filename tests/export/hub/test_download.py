"""What is pulled from the hub, with a hub that is a folder: real errors, real hashes, no network."""

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import huggingface_hub
import pytest
import typer
from huggingface_hub import errors
from huggingface_hub.hf_api import BlobLfsInfo, RepoSibling

import mobileclip
from app.cli.models import list_models
from export.hub import cli as models_cli
from export.hub import download as hub
from export.hub.download import HubError, NoNetworkError, catalog, find_entry
from export.hub.processors import ReadyError
from mobileclip.extras import MissingExtraError, install_hint

REQUEST = httpx2.Request("GET", "http://hub.invalid/api/models/x")


def refusal(kind: type[errors.HfHubHTTPError], status: int) -> errors.HfHubHTTPError:
    return kind(f"{status} Client Error.\n\nSorry", response=httpx2.Response(status, request=REQUEST))


class FakeHub:
    """Serves a folder as any repository, with the hub's own metadata."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.raises: BaseException | None = None
        self.raises_at: dict[str, BaseException] = {}
        self.damaged: set[str] = set()
        self.asked: list[tuple[str, str | None]] = []
        self.served: list[str] = []

    def model_info(self, repo: str, *, revision: str | None = None, files_metadata: bool = False) -> Any:
        assert files_metadata
        if self.raises is not None:
            raise self.raises
        self.asked.append((repo, revision))
        siblings = [self.sibling(path) for path in sorted(self.folder.rglob("*")) if path.is_file()]
        return SimpleNamespace(sha="c" * 40, siblings=siblings, card_data={"license": "mit"})

    def sibling(self, path: Path) -> RepoSibling:
        data, name = path.read_bytes(), path.relative_to(self.folder).as_posix()
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        large = path.suffix in (".onnx", ".safetensors")
        lfs = BlobLfsInfo(size=len(data), sha256=hashlib.sha256(data).hexdigest(), pointer_size=134)
        return RepoSibling(name, size=len(data), blob_id=git, lfs=lfs if large else None)

    def download(self, repo: str, name: str, *, revision: str, local_dir: str) -> str:
        assert revision == "c" * 40
        if name in self.raises_at:
            raise self.raises_at[name]
        self.served.append(name)
        target = Path(local_dir, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((self.folder / name).read_bytes() + (b"!" if name in self.damaged else b""))
        return str(target)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POCKETCLIP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def fake(tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    made = FakeHub(tiny_folder)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", made.download)
    return made


def pull(name: str, precision: str = "", force: bool = False) -> Path:
    return models_cli._pull(name, precision, force, quiet=True)


def models_in(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "models").glob("*"))


def test_the_catalog_is_valid() -> None:
    entries = catalog()
    assert len({entry.name for entry in entries}) == len(entries) >= 20
    for entry in entries:
        assert entry.repo.count("/") == 1 and entry.kind in ("onnx", "openclip") and entry.license and entry.homepage
        # Apple's weights, whoever converted them, are for research only.
        assert entry.research_only == ("mobileclip" in entry.name)
        assert all(len(value) == 64 for value in entry.sha256.values())
        assert entry.bytes == 0 or 10**8 < entry.bytes < 10**10


def test_a_known_name_becomes_a_bundle_of_that_name(fake: FakeHub, home: Path) -> None:
    out = pull("clip-vit-b-32")
    assert out == home / "models" / "clip-vit-b-32"
    assert fake.asked == [("Xenova/clip-vit-base-patch32", find_entry("clip-vit-b-32").revision)]
    assert "onnx/vision_model.onnx" in fake.served and len(fake.served) == 6
    model = mobileclip.load("clip-vit-b-32", threads=1)
    assert model.encode_texts("a dog").shape == (12,)
    assert model.manifest.revision == "c" * 40 and "Xenova/clip-vit-base-patch32" in model.manifest.provenance
    assert models_in(home) == ["clip-vit-b-32"]
    assert not list((home / "cache" / "hub").iterdir())


def test_a_pulled_name_can_be_evaluated(fake: FakeHub) -> None:
    from distill.evaluate.encoders import open_encoder

    pull("clip-vit-b-32")
    assert open_encoder("clip-vit-b-32").encode_texts(["a dog"]).shape == (1, 12)


def test_apples_weights_say_that_they_are_for_research(
    fake: FakeHub, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models_cli._pull("mobileclip-s1", "", False, quiet=False)
    assert "for research only" in capsys.readouterr().err
    list_models(as_json=True, quiet=True)
    listed = json.loads(capsys.readouterr().out)
    (about,) = [about for about in listed["installed"] if about["name"] == "mobileclip-s1"]
    assert about["research_only"] and about["labels"] == 0
    list_models(as_json=False, quiet=True)
    assert capsys.readouterr().out.count("RESEARCH ONLY: Apple") == 1
    models_cli.available(as_json=False)
    assert capsys.readouterr().out.count("RESEARCH ONLY: Apple") > 10


def test_a_model_in_a_folder_of_its_repository(fake: FakeHub, tiny_folder: Path, tmp_path: Path) -> None:
    fake.folder = Path(shutil.copytree(tiny_folder, tmp_path / "several"))
    shutil.copytree(fake.folder / "onnx", fake.folder / "onnx" / "s1")
    (fake.folder / "onnx").rename(fake.folder / "moved")
    (fake.folder / "moved" / "s1").rename(fake.folder / "onnx")
    assert find_entry("some/Models/moved/").name == "models-moved"
    assert mobileclip.load(pull("some/Models/moved")).name == "models-moved"
    with pytest.raises(ReadyError, match="several models; add the folder of one: moved, onnx"):
        pull("some/Models")


def test_any_repository(fake: FakeHub, home: Path) -> None:
    out = pull("Someone/Their_CLIP")
    assert out.name == "their-clip" and mobileclip.load(out).manifest.license == "mit"
    assert fake.asked == [("Someone/Their_CLIP", "main")]


def test_a_model_that_is_there_is_replaced_only_by_force(fake: FakeHub, home: Path) -> None:
    pull("Someone/Their_CLIP")
    fake.served.clear()
    with pytest.raises(HubError, match="already exists"):
        pull("Someone/Their_CLIP")
    assert not fake.served
    pull("Someone/Their_CLIP", force=True)
    assert fake.served and models_in(home) == ["their-clip"]
    with pytest.raises(HubError, match="ships with pocketclip"):
        pull("someone/pocket", force=True)


def test_a_folder_needs_no_dot_unless_its_name_is_known(
    fake: FakeHub, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_folder, tmp_path / "some" / "My CLIP (2)")
    shutil.copytree(tiny_folder, tmp_path / "clip-vit-b-16")
    assert mobileclip.load(pull("some/My CLIP (2)")).name == "my-clip-2"
    pull("./clip-vit-b-16")
    assert not fake.asked
    pull("clip-vit-b-16", force=True)
    assert fake.asked


def test_an_unknown_name_is_answered_with_the_nearest(fake: FakeHub) -> None:
    with pytest.raises(HubError, match=r"did you mean clip-vit-b-32\?"):
        pull("clip-vit-b32")
    with pytest.raises(HubError, match="models available"):
        pull("zzz")
    assert not fake.asked


@pytest.mark.parametrize("name", ["onnx/vision_model.onnx", "tokenizer.json"])
def test_a_bad_hash_deletes_the_file_and_makes_nothing(fake: FakeHub, home: Path, name: str) -> None:
    fake.damaged = {name}
    with pytest.raises(HubError, match=rf"{name} has the wrong hash") as caught:
        pull("clip-vit-b-32")
    assert "\n" not in str(caught.value)
    assert models_in(home) == [] and not [path for path in home.rglob("*") if path.name == Path(name).name]
    fake.damaged = set()
    assert pull("clip-vit-b-32").is_dir()


def test_the_hash_in_the_catalog_is_checked_too(fake: FakeHub, home: Path) -> None:
    with pytest.raises(HubError, match="has the wrong hash"):  # what the fake hub serves is not Apple's
        pull("mobileclip-s0")
    assert models_in(home) == []


NO_NETWORK = [
    httpx2.ConnectError("[Errno -2] Name or service not known"),
    httpx2.ReadTimeout("timed out"),
    httpx2.RemoteProtocolError("peer closed connection"),
    errors.OfflineModeIsEnabled("offline mode is enabled"),
    errors.LocalEntryNotFoundError("Cannot find the requested files in the disk cache and …"),
    ConnectionResetError(104, "Connection reset by peer"),
]


@pytest.mark.parametrize("error", NO_NETWORK, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("when", ["asking", "fetching"])
def test_no_network_is_said_in_one_line_with_code_1(
    fake: FakeHub, home: Path, error: Exception, when: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if when == "asking":
        fake.raises = error
    else:
        fake.raises_at = {"onnx/text_model.onnx": error}
    with pytest.raises(NoNetworkError, match="can't be reached") as caught:
        pull("clip-vit-b-32")
    assert "\n" not in str(caught.value) and models_in(home) == []
    with pytest.raises(typer.Exit) as ended:
        models_cli.pull("clip-vit-b-32", quiet=True)
    shown = capsys.readouterr()
    assert ended.value.exit_code == 1 and shown.out == "" and len(shown.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (refusal(errors.RepositoryNotFoundError, 401), "no public repository"),
        (refusal(errors.GatedRepoError, 403), "accepted its terms"),
        (refusal(errors.RevisionNotFoundError, 404), "update pocketclip"),
        (refusal(errors.RemoteEntryNotFoundError, 404), "a file is missing"),
        (refusal(errors.HfHubHTTPError, 503), "refuses"),
        (errors.HFValidationError("Repo id must …"), "isn't the name of a repository"),
        (OSError(28, "No space left on device"), "can't be stored"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_the_hub_refuses_is_said_in_one_line(fake: FakeHub, home: Path, error: Exception, said: str) -> None:
    fake.raises = error
    with pytest.raises(HubError, match=said) as caught:
        pull("clip-vit-b-32")
    assert "\n" not in str(caught.value) and not isinstance(caught.value, NoNetworkError)
    assert models_in(home) == []


def test_an_interrupted_download_makes_nothing_and_resumes_later(fake: FakeHub, home: Path) -> None:
    fake.raises_at = {"onnx/text_model.onnx": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        pull("clip-vit-b-32")
    assert models_in(home) == []
    assert list(home.rglob("vision_model.onnx"))  # kept for the next time
    fake.raises_at = {}
    pull("clip-vit-b-32")
    assert models_in(home) == ["clip-vit-b-32"]


def test_without_the_extra_one_line_says_what_to_install(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=re.escape(install_hint("hub"))):
        pull("clip-vit-b-32")


def test_a_missing_precision_names_those_there_are(fake: FakeHub) -> None:
    with pytest.raises(ReadyError, match=r"no q4 towers, only fp32 \(\d"):
        pull("clip-vit-b-32", precision="q4")
    assert not fake.served


def test_safetensors_are_fetched_and_left_to_export(
    fake: FakeHub, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.folder = tmp_path / "openclip"
    fake.folder.mkdir()
    for name in ("open_clip_config.json", "open_clip_model.safetensors", "open_clip_pytorch_model.bin", "vocab.json"):
        (fake.folder / name).write_bytes(b"{}" + name.encode())
    out = models_cli._pull("laion-vit-b-32-openclip", "", False, quiet=False)
    assert out == home / "models" / "laion-vit-b-32-openclip.checkpoint"
    assert sorted(path.name for path in out.iterdir()) == ["open_clip_config.json", "open_clip_model.safetensors"]
    said = capsys.readouterr().err
    assert f"pocketclip export {out} -o" in said and install_hint("train,export") in said
    with pytest.raises(HubError, match="already exists"):
        pull("laion-vit-b-32-openclip")
    pull("laion-vit-b-32-openclip", force=True)
    with pytest.raises(HubError, match="without --precision"):
        pull("laion-vit-b-32-openclip", precision="fp16")
    with pytest.raises(HubError, match="is a checkpoint; `pocketclip export"):
        pull(str(out))
    (fake.folder / "open_clip_model.safetensors").unlink()  # what is left is a pickle
    with pytest.raises(HubError, match="neither ready-made ONNX towers nor safetensors"):
        pull("other/pickled")


def test_nothing_is_shown_where_nobody_looks(fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.utils

    shown: list[bool] = []
    monkeypatch.setattr(huggingface_hub.utils, "disable_progress_bars", lambda: shown.append(False))
    monkeypatch.setattr(huggingface_hub.utils, "enable_progress_bars", lambda: shown.append(True))
    repository = hub.look_up(find_entry("some/one"))
    for terminal, quiet in ((False, False), (True, True), (True, False)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal, raising=False)
        hub.fetch(repository, ["config.json"], tmp_path, {}, quiet=quiet)
    assert shown == [False, False, True]
