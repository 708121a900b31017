"""Tars on other machines are copied once, as a whole, by any number of processes."""

import functools
import multiprocessing
import sys
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from distill.config import PhotoSource
from distill.data import remote
from distill.data.remote import DOWNLOADS, check_remote, is_remote, local_path, local_tars, remote_tars, source_tars
from distill.data.tables import DataError
from distill.data.tars import read_index
from distill.recipe.check import Findings, _photos
from mobileclip.extras import MissingExtraError
from tests.distill.mixed import jpeg, write_tar

Said = list[tuple[Any, ...]]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """A folder with five tars of two samples, and the names of classes."""
    for number in range(5):
        members = [(f"{key}.{suffix}", data) for key in "ab" for suffix, data in (("jpg", jpeg(number)), ("txt", b"x"))]
        write_tar(tmp_path / f"source/{number:03}.tar", members)
    (tmp_path / "source/classnames.txt").write_text("cat\ndog\n")
    return tmp_path / "source"


@pytest.fixture
def memory(tars: Path) -> Iterator[str]:
    """The same on fsspec's file system in memory."""
    files = fsspec.filesystem("memory")
    files.put(str(tars), "/bucket/set", recursive=True)
    yield "memory://bucket/set"
    files.rm("/bucket", recursive=True)


def test_a_pattern_is_copied_once(memory: str, tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: Said = []
    pattern = f"{memory}/{{000..004}}.tar"
    copies = local_tars(pattern, tmp_path / "copies", lambda *line: said.append(line))
    assert [copy.name for copy in copies] == [f"{number:03}.tar" for number in range(5)]
    assert [copy.read_bytes() for copy in copies] == [(tars / copy.name).read_bytes() for copy in copies]
    assert [line[:3] for line in said] == [("download", done, 5) for done in range(1, 6)]
    assert (copies[0].parent / "classnames.txt").read_text() == "cat\ndog\n"
    assert not list(copies[0].parent.glob("*.part"))
    monkeypatch.setattr(remote, "_open", lambda url: pytest.fail(f"{url} was asked for again"))
    assert local_tars(pattern, tmp_path / "copies", lambda *line: said.append(line)) == copies and len(said) == 5


@pytest.mark.parametrize("pattern", ["*.tar", "", "00[0-4].tar", "{000..002}.tar", "{00[0-2],00[34]}.tar"])
def test_wildcards_folders_and_braces(pattern: str, memory: str) -> None:
    found = [url.replace(":///", "://") for url in remote_tars(f"{memory}/{pattern}")]
    assert found == [f"{memory}/{number:03}.tar" for number in range(3 if ".." in pattern else 5)]


def test_what_is_missing_is_one_line(memory: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"memory://bucket/set/9\.tar: no such file$"):
        local_tars(f"{memory}/9.tar", tmp_path / "copies")
    with pytest.raises(DataError, match=r"none\*\.tar: no \.tar found$"):
        remote_tars(f"{memory}/none*.tar")
    with pytest.raises(DataError, match=r"a\.tar\.gz: not a \.tar"):
        remote_tars(f"{memory}/a.tar.gz")
    with pytest.raises(DataError, match=r"nowhere://x/a\.tar: cannot be copied \(Protocol not known: nowhere\)"):
        check_remote("nowhere://x/a.tar")
    assert not list((tmp_path / "copies").rglob("*.tar"))


@pytest.mark.parametrize(("protocol", "module"), [("https", "aiohttp"), ("s3", "s3fs")])
def test_a_missing_package_is_named_with_its_extra(protocol: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    monkeypatch.setattr(sys.modules["fsspec.registry"], "_registry", {})
    with pytest.raises(MissingExtraError, match=rf"{protocol}:// needs .*'remote'.* -m pip install .*\[remote\]"):
        check_remote(f"{protocol}://bucket/set/000.tar")


def test_a_copy_that_breaks_off_is_tried_again_and_never_kept(
    memory: str, tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = fsspec.filesystem("memory")
    get, failures = type(files).get_file, ["short", "broken"]

    def unsteady(self: Any, path: str, target: str, **more: Any) -> None:
        get(self, path, target, **more)
        if failures:
            kind = failures.pop()
            if kind == "short":
                Path(target).write_bytes(Path(target).read_bytes()[:-100])
            else:
                raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(type(files), "get_file", unsteady)
    killed = local_path(f"{memory}/000.tar", tmp_path / "copies").with_name(".000.tar.99-0a1b2c3d.part")
    killed.parent.mkdir(parents=True)
    killed.write_bytes(b"half")
    (copy,) = local_tars(f"{memory}/000.tar", tmp_path / "copies")
    assert copy.read_bytes() == (tars / "000.tar").read_bytes() and not failures and not killed.exists()
    failures += ["short"] * 20
    with pytest.raises(DataError, match=r"001\.tar: [\d,]+ bytes arrived, not [\d,]+"):
        local_tars(f"{memory}/001.tar", tmp_path / "copies")
    failures[:] = ["broken"] * 20
    with pytest.raises(DataError, match=r"001\.tar: cannot be copied \(reset by peer\)"):
        local_tars(f"{memory}/001.tar", tmp_path / "copies")
    assert sorted(path.name for path in copy.parent.glob("[0-9a-z]*")) == ["000.tar", "classnames.txt"]


def test_folders_of_the_same_name_do_not_mix(tmp_path: Path) -> None:
    urls = [f"s3://{bucket}/set/000.tar" for bucket in ("a", "b", "a-set", "x" * 90, "x" * 91)]
    assert len({local_path(url, tmp_path) for url in urls}) == len(urls)
    assert local_path("s3://bucket/set/000.tar", tmp_path).parent.name.startswith("s3-bucket-set-")


def test_the_check_of_a_recipe_copies_nothing(memory: str, tmp_path: Path) -> None:
    source, findings = PhotoSource("web", "webdataset", f"{memory}/{{000..004}}.tar"), Findings()
    said = _photos(source, tmp_path / "data", findings)
    assert said.startswith("5 tars on another machine, about 0.0 GiB, which training copies to ")
    assert not (tmp_path / "data").exists()
    local_tars(f"{memory}/{{000..002}}.tar", tmp_path / "data" / DOWNLOADS)
    said = _photos(source, tmp_path / "data", findings)
    assert said == "5 tars on another machine, 3 of them copied: 6 photos in 3 tars"
    with pytest.raises(DataError, match=r"900\.tar: no such file"):
        _photos(PhotoSource("web", "webdataset", f"{memory}/{{900..999}}.tar"), tmp_path / "data", findings)


def test_local_patterns_have_braces_too(tars: Path) -> None:
    names = [path.name for path in source_tars("source/{000..002}.tar", tars.parent)]
    assert names == ["000.tar", "001.tar", "002.tar"]
    assert len(source_tars("source", tars.parent)) == len(source_tars("source/*.tar", tars.parent)) == 5
    with pytest.raises(DataError, match=r"source/{1: "):
        source_tars("source/{1", tars.parent)
    assert not is_remote("source/000.tar") and is_remote("s3://bucket/000.tar")


class Server(SimpleHTTPRequestHandler):
    """A web server that counts what it sends."""

    sent: list[str]

    def do_GET(self) -> None:
        self.sent.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def web(tars: Path) -> Iterator[tuple[str, list[str]]]:
    """The same on a web server, with the list of the files that it sent."""
    pytest.importorskip("aiohttp")
    handler = functools.partial(type("Counting", (Server,), {"sent": []}), directory=str(tars))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler.func.sent
    server.shutdown()
    server.server_close()


def _copy_in_process(pattern: str, folder: Path) -> None:
    local_tars(pattern, folder)


def test_processes_share_the_work_on_the_web(web: tuple[str, list[str]], tars: Path, tmp_path: Path) -> None:
    address, sent = web
    processes = [
        multiprocessing.get_context("spawn").Process(
            target=_copy_in_process, args=(f"{address}/{{000..004}}.tar", tmp_path / "copies")
        )
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted(path for path in sent if path.endswith(".tar")) == [f"/{n:03}.tar" for n in range(5)]
    copies = source_tars(f"{address}/{{000..004}}.tar", tmp_path / "none" / "..")[:1]
    assert [len(read_index(copy)[0]) for copy in copies] == [2]
    timeout = remote._open(f"{address}/000.tar")[0].client_kwargs["timeout"]
    assert timeout.total is None and timeout.sock_read, "a large tar may take hours, but not a stalled one"
    assert check_remote(f"{address}/000.tar") == (tars / "000.tar").stat().st_size
    with pytest.raises(DataError, match=r"/7\.tar: no such file"):
        check_remote(f"{address}/7.tar")


def test_s3_is_copied_as_any_other(tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a simulated S3, if the packages are there."""
    s3fs, moto = pytest.importorskip("s3fs"), pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    address, port = server.get_host_and_port()
    settings = {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "y", "DEFAULT_REGION": "us-east-1"}
    for name, value in {**settings, "ENDPOINT_URL": f"http://{address}:{port}"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    try:
        files = s3fs.S3FileSystem()
        files.mkdir("bucket")
        files.put(str(tars), "bucket/set", recursive=True)
        copies = local_tars("s3://bucket/set/{000..004}.tar", tmp_path / "copies")
        assert [copy.read_bytes() for copy in copies] == [(tars / copy.name).read_bytes() for copy in copies]
        assert copies == local_tars("s3://bucket/set/*.tar", tmp_path / "copies")
        with pytest.raises(DataError, match=r"s3://bucket/set/9\.tar: no such file"):
            local_tars("s3://bucket/set/9.tar", tmp_path / "copies")
    finally:
        server.stop()
