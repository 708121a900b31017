"""Models on the Hugging Face hub: the catalog, what a repository holds, and its verified download.

No other module of the project downloads anything, and only `pocketclip models pull` uses this one.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mobileclip.errors import PocketclipError, one_line
from mobileclip.extras import MissingExtraError
from mobileclip.files import PathLike

__all__ = [
    "CATALOG",
    "Entry",
    "HubError",
    "NoNetworkError",
    "Repository",
    "catalog",
    "fetch",
    "find_entry",
    "look_up",
    "plain_name",
]

CATALOG = Path(__file__).with_name("catalog.toml")

_REPOSITORY = re.compile(r"([\w.-]+/[\w.-]+)(?:/([\w./-]+))?", re.ASCII)
_LICENSE_UNKNOWN = "not stated; ask whoever made these weights"


class HubError(PocketclipError):
    """A model that can't be found or downloaded, or isn't what it should be."""


class NoNetworkError(HubError):
    """The hub can't be reached."""


@dataclass(frozen=True)
class Entry:
    """A model that can be pulled.

    Attributes:
        name: of the bundle.
        repo: owner/name.
        revision: a commit, or a branch.
        license: of the weights; empty if only the repository says.
        kind: "onnx", "openclip", or empty if the list of files decides.
        research_only: whether the license allows only research.
        bytes: of what is downloaded by default; 0 if unknown.
        homepage: of the model.
        folder: of the towers; empty if there is only one.
        sha256: path → hash that a file must have.
    """

    name: str
    repo: str
    revision: str
    license: str = ""
    kind: str = ""
    research_only: bool = False
    bytes: int = 0
    homepage: str = ""
    folder: str = ""
    sha256: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RemoteFile:
    """What the hub says about one file: SHA-256 of a large file, git hash of a small one."""

    bytes: int
    sha256: str
    git_hash: str


@dataclass(frozen=True)
class Repository:
    """One exact version of a repository."""

    repo: str
    commit: str
    license: str
    files: Mapping[str, RemoteFile]


def catalog() -> list[Entry]:
    """All models that can be pulled by name."""
    tables = tomllib.loads(CATALOG.read_text(encoding="utf-8"))["model"]
    return [Entry(license=table.pop("licence", ""), **table) for table in tables]


def plain_name(text: str) -> str:
    """`text` as the name of a bundle: lowercase letters, digits, dots and hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "model"


def find_entry(name: str) -> Entry:
    """The model with a name from the catalog, or any repository given as OWNER/REPO or OWNER/REPO/FOLDER.

    Raises:
        HubError: `name` is neither.
    """
    entries = {entry.name: entry for entry in catalog()}
    if name in entries:
        return entries[name]
    if match := _REPOSITORY.fullmatch(name):
        repo, folder = match[1], (match[2] or "").strip("/")
        last = folder.rpartition("/")[2]
        return Entry(plain_name(" ".join((repo.partition("/")[2], last))), repo, "main", folder=folder)
    near = difflib.get_close_matches(name, entries, n=1)
    hint = f"did you mean {near[0]}?" if near else "`pocketclip models available` lists them"
    raise HubError(f"no model is called {name!r}; {hint}")


def look_up(entry: Entry) -> Repository:
    """Ask the hub what a repository holds at a revision, and which exact commit that is.

    Raises:
        HubError: no such repository or revision, or no permission.
        MissingExtraError: the `hub` extra isn't installed.
        NoNetworkError: the hub can't be reached.
    """
    hub = _hub()
    with _explained(entry.repo):
        info = hub.HfApi().model_info(entry.repo, revision=entry.revision, files_metadata=True)
    files = {
        sibling.rfilename: RemoteFile(
            int(sibling.size or 0), sibling.lfs.sha256 if sibling.lfs else "", sibling.blob_id or ""
        )
        for sibling in info.siblings or ()
    }
    card: Any = info.card_data or {}
    license_name = card.get("license_name") or card.get("license") or _LICENSE_UNKNOWN
    return Repository(entry.repo, info.sha or entry.revision, entry.license or str(license_name), files)


def fetch(
    repository: Repository, names: Sequence[str], folder: PathLike, expected: Mapping[str, str], *, quiet: bool
) -> None:
    """Download files into `folder` and verify each. Files that are already there and correct are kept.

    Args:
        repository: see `look_up`.
        names: paths in the repository.
        folder: gets them under the same paths; an interrupted download resumes there.
        expected: path → SHA-256, checked in addition to what the hub itself states.
        quiet: show no progress, even on a terminal.

    Raises:
        HubError: a file has the wrong hash; it has been deleted.
        NoNetworkError: the hub can't be reached.
    """
    hub = _hub()
    utils = importlib.import_module("huggingface_hub.utils")
    if quiet or not sys.stderr.isatty():
        utils.disable_progress_bars()
    else:
        utils.enable_progress_bars()
    for name in names:
        with _explained(repository.repo):
            path = Path(hub.hf_hub_download(repository.repo, name, revision=repository.commit, local_dir=str(folder)))
        if not _is_correct(path, repository.files[name], expected.get(name, "")):
            path.unlink()
            raise HubError(f"{repository.repo}: {name} has the wrong hash and was deleted; try again")


def _is_correct(path: Path, remote: RemoteFile, expected: str) -> bool:
    sha256 = hashlib.sha256()
    # For small files the hub states no SHA-256, only git's hash over length and content.
    git = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(2**20):
            sha256.update(block)
            git.update(block)
    if expected and sha256.hexdigest() != expected:
        return False
    if remote.sha256:
        return sha256.hexdigest() == remote.sha256
    return not remote.git_hash or git.hexdigest() == remote.git_hash


def _hub() -> Any:
    # Otherwise the library reports each use to its makers. It reads this when it is imported.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise MissingExtraError("pulling from the hub", "hub", error.name) from None


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into errors of one line."""
    errors = importlib.import_module("huggingface_hub.errors")
    try:
        yield
    except errors.GatedRepoError:
        raise HubError(f"{repo} is only for people who accepted its terms on the hub and are logged in") from None
    except errors.RepositoryNotFoundError:
        raise HubError(f"there is no public repository {repo} on the hub") from None
    except errors.RevisionNotFoundError:
        raise HubError(f"{repo} no longer has this version; update pocketclip") from None
    except errors.LocalEntryNotFoundError:  # what a download raises if it can't ask the hub
        raise NoNetworkError(_no_network(repo)) from None
    except errors.EntryNotFoundError as error:
        raise HubError(f"{repo}: a file is missing ({one_line(error)})") from None
    except errors.HFValidationError as error:
        raise HubError(f"{repo!r} isn't the name of a repository ({one_line(error)})") from None
    except Exception as error:
        if isinstance(error, errors.HfHubHTTPError):
            raise HubError(f"the hub refuses {repo}: {one_line(error)}") from None
        if _is_network(error):
            raise NoNetworkError(_no_network(repo)) from None
        if isinstance(error, OSError):
            raise HubError(f"{repo} can't be stored: {one_line(error)}") from None
        raise


def _is_network(error: Exception) -> bool:
    # It has changed its HTTP library three times; all of them use these names.
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"TransportError", "RequestException", "ConnectionError", "TimeoutError", "XetDownloadError"})


def _no_network(repo: str) -> str:
    return f"the Hugging Face hub can't be reached, so {repo} was not pulled; try again with a network connection"
