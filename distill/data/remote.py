"""WebDataset tars on the web or in object storage, copied once to a folder of this machine.

A pattern is a URL that fsspec knows, such as `https://example.org/set/{00000..00099}.tar` or `s3://bucket/set/*.tar`.
Training reads single samples in random order, which local files do well and the network doesn't.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from braceexpand import braceexpand
from filelock import FileLock

from distill.config import PhotoSource
from distill.data.tables import DataError
from distill.data.tars import CLASS_NAMES, find_tars
from distill.progress import ReportProgress
from mobileclip.errors import one_line
from mobileclip.extras import MissingExtraError
from mobileclip.files import PathLike, atomic_write

DOWNLOADS = "downloads"
"""Folder of copied tars in a data folder."""

STREAMS = 8
"""How many tars a process copies at a time."""

TRIES = 4
"""How often a copy is tried. The pause before the next try is 1 second, then 2, then 4."""

IN_EXTRA = ("http", "https", "s3")
"""Protocols whose packages are in the extra `remote`."""


def is_remote(pattern: str) -> bool:
    """Whether a pattern is a URL."""
    return "://" in pattern


def source_tars(pattern: str, data: PathLike, report: ReportProgress | None = None) -> list[Path]:
    """Return the tars that a recipe names, after those on another machine are copied to `DOWNLOADS`.

    Args:
        pattern: a URL, see `remote_tars`, or a path relative to the data folder, see `find_tars`. Both may have braces,
            such as `{000..099}.tar` or `{train,val}/*.tar`.
        data: the data folder.
        report: called after each copied tar.

    Raises:
        DataError: a tar is missing or can't be copied.
    """
    data = Path(data)
    if is_remote(pattern):
        return local_tars(pattern, data / DOWNLOADS, report)
    parts = [pattern] if (data / pattern).exists() else _expand(pattern)
    return [tar for part in parts for tar in find_tars(data / part)]


def remote_tars(pattern: str) -> list[str]:
    """Return the URLs of the tars of a pattern, in order. Only wildcards, and folders that end with `/`, are looked up.

    Raises:
        DataError: a wildcard or folder matches nothing, or something isn't a tar.
        MissingExtraError: the protocol needs a package that isn't installed.
    """
    urls = []
    for url in _expand(pattern):
        if url.endswith("/"):
            url += "*.tar"
        if any(character in url for character in "*?["):
            with _readable(url):
                files, path = _open(url)
                found = sorted(files.unstrip_protocol(name) for name in files.glob(path))
            if not found:
                raise DataError(f"{url}: no .tar found")
            urls += found
        else:
            urls.append(url)
    if wrong := [url for url in urls if not url.endswith(".tar")]:
        raise DataError(f"{wrong[0]}: not a .tar; name tars, or a folder that ends with /")
    return urls


def find_copies(pattern: str, data: PathLike) -> tuple[list[Path], str]:
    """Return the tars of a pattern that were copied already, and a sentence about all of them. Nothing is copied.

    Args:
        pattern: a URL, see `remote_tars`.
        data: the data folder, see `source_tars`.

    Raises:
        DataError: there are no copies yet, and the first or the last tar can't be read.
        MissingExtraError: the protocol needs a package that isn't installed.
    """
    urls = remote_tars(pattern)
    copies = [copy for url in urls if (copy := local_path(url, Path(data) / DOWNLOADS)).exists()]
    if copies:
        return copies, f"{len(urls):,} tars on another machine, {len(copies):,} of them copied"
    sizes = [check_remote(url) for url in (urls[0], urls[-1])]
    about = f", about {len(urls) * max(sizes) / 2**30:,.1f} GiB" if (sizes := [size for size in sizes if size]) else ""
    return [], f"{len(urls):,} tars on another machine{about}, which training copies to {Path(data) / DOWNLOADS}"


def check_remote(url: str) -> int | None:
    """Ask for a file without reading it; returns its size in bytes, if that is known.

    Raises:
        DataError: it is missing, or can't be read.
        MissingExtraError: the protocol needs a package that isn't installed.
    """
    with _readable(url):
        files, path = _open(url)
        size: int | None = files.info(path).get("size")
    return size


def local_path(url: str, folder: PathLike) -> Path:
    """Return where the copy of a tar is kept."""
    parent, _, name = url.rpartition("/")
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", parent).strip("-")[-60:]
    return Path(folder) / f"{readable}-{hashlib.sha256(parent.encode()).hexdigest()[:8]}" / name


def local_tars(pattern: str, folder: PathLike, report: ReportProgress | None = None) -> list[Path]:
    """Copy the tars of a pattern to a folder, except those that are there; returns the copies in order.

    Each tar appears as a whole. A file lock decides who copies it, so any number of processes, for example all those of
    a machine, can call this at the same time and share the work. If one is killed, the next call copies only what is
    missing. A `classnames.txt` next to the tars or in the folder above is copied too.

    Args:
        pattern: see `remote_tars`.
        folder: where to keep the copies, below a folder for each remote one.
        report: called after each tar.

    Raises:
        DataError: a tar is missing, or can't be read or written.
        MissingExtraError: the protocol needs a package that isn't installed.
    """
    urls = remote_tars(pattern)
    copies = [local_path(url, folder) for url in urls]
    missing = [(url, copy) for url, copy in zip(urls, copies, strict=True) if not copy.exists()]
    for parent, copy in {url.rpartition("/")[0]: copy for url, copy in missing}.items():
        _copy_class_names(parent, copy.parent)
    for done, url in enumerate(_copy_all(missing), len(urls) - len(missing) + 1):
        if report:
            report("download", done, len(urls), url.rpartition("/")[2])
    return copies


def copy_remote(sources: Iterable[PhotoSource], data: PathLike, report: ReportProgress) -> None:
    """Copy all tars that are on another machine, so that `source_tars` finds them."""
    for source in sources:
        if source.kind == "webdataset" and is_remote(source.file):
            local_tars(source.file, Path(data) / DOWNLOADS, report)


def _copy_all(tars: Sequence[tuple[str, Path]]) -> Iterator[str]:
    """Copy tars, several at a time; yields the URL of each when it is there."""
    with ThreadPoolExecutor(STREAMS) as pool:
        futures = {pool.submit(_copy, url, copy): url for url, copy in tars}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _copy(url: str, target: Path) -> None:
    """Copy a file, unless another process does it first."""
    with _readable(url):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if target.exists():
                return
            for part in target.parent.glob(f".{target.name}.*.part"):  # of a process that was killed
                part.unlink()
            for attempt in range(TRIES):
                try:
                    files, path = _open(url)
                    size = files.info(path).get("size")
                    with atomic_write(target) as part:
                        files.get_file(path, str(part))
                        if size is not None and part.stat().st_size != size:
                            raise DataError(f"{url}: {part.stat().st_size:,} bytes arrived, not {size:,}")
                    return
                except (FileNotFoundError, PermissionError, ImportError):
                    raise
                except Exception:  # each protocol has its own errors
                    if attempt == TRIES - 1:
                        raise
                    time.sleep(2**attempt)


def _copy_class_names(parent: str, folder: Path) -> None:
    """Copy the names of the classes of a remote folder of tars, if it has them."""
    for place in (parent, parent.rpartition("/")[0]):
        if place.endswith(("/", ":")):
            continue
        try:
            _copy(f"{place}/{CLASS_NAMES}", folder / CLASS_NAMES)
        except DataError:
            continue
        return


def _open(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it."""
    options: dict[str, Any] = {}
    if url.startswith(("http://", "https://")):
        import aiohttp

        # By default, a file has to arrive within five minutes.
        options["client_kwargs"] = {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=60, sock_read=60)}
    files, path = fsspec.core.url_to_fs(url, **options)
    return files, path


def _expand(pattern: str) -> list[str]:
    try:
        return list(braceexpand(pattern))
    except ValueError as error:
        raise DataError(f"{pattern}: {one_line(error)}") from error


@contextmanager
def _readable(url: str) -> Iterator[None]:
    """Turn every protocol's errors into one line that names the URL."""
    try:
        yield
    except DataError:
        raise
    except ImportError as error:
        protocol = url.partition("://")[0]
        if protocol in IN_EXTRA:
            raise MissingExtraError(f"{protocol}://", "remote") from error
        raise DataError(f"{url}: {one_line(error)}") from error
    except FileNotFoundError as error:
        raise DataError(f"{url}: no such file") from error
    except Exception as error:
        raise DataError(f"{url}: cannot be copied ({one_line(error)})") from error
