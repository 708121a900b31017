"""huggingface_hub itself against a server on this machine that answers as the hub does; and against none."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

REPOSITORY = Path(__file__).parents[3]
COMMIT = "d15189d7028b43f1d3e65039190477f6af591c2a"
API = f"/api/models/Xenova/clip-vit-base-patch32/revision/{COMMIT}"
FILES = f"/Xenova/clip-vit-base-patch32/resolve/{COMMIT}/"


class Hub(BaseHTTPRequestHandler):
    """One repository in one version."""

    folder: Path
    spoilt = b""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        name = path.removeprefix(FILES)
        if path == API:
            return self.answer(json.dumps({"id": "x", "sha": COMMIT, "siblings": self.siblings()}).encode())
        if not path.startswith(FILES) or not (self.folder / name).is_file():
            return self.send_error(404)
        data = (self.folder / name).read_bytes()
        etag = hashlib.sha256(data).hexdigest()
        return self.answer(data[: -len(self.spoilt)] + self.spoilt if self.spoilt else data, etag)

    def siblings(self) -> list[dict[str, object]]:
        found = []
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                data = path.read_bytes()
                entry = {"rfilename": path.relative_to(self.folder).as_posix(), "size": len(data)}
                entry["blobId"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
                if path.suffix == ".onnx":
                    lfs = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 134}
                    entry["lfs"] = lfs
                found.append(entry)
        return found

    def answer(self, data: bytes, etag: str = "x") -> None:
        self.send_response(200)
        for header, value in (("Content-Length", len(data)), ("ETag", f'"{etag}"'), ("X-Repo-Commit", COMMIT)):
            self.send_header(header, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tiny_folder: Path) -> Iterator[type[Hub]]:
    handler = type("Handler", (Hub,), {"folder": tiny_folder})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        handler.endpoint = f"http://127.0.0.1:{running.server_port}"
        Thread(target=running.serve_forever, daemon=True).start()
        yield handler
        running.shutdown()


def pull(home: Path, endpoint: str, **more: str) -> "subprocess.CompletedProcess[str]":
    own = {"POCKETCLIP_HOME": str(home), "HF_HOME": str(home / "hf"), "HF_ENDPOINT": endpoint, "NO_PROXY": "127.0.0.1"}
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    command = [sys.executable, "-m", "app", "models", "pull", "clip-vit-b-32"]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment | own | more, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_model_is_pulled_and_every_file_checked(server: type[Hub], tmp_path: Path, tiny_folder: Path) -> None:
    done = pull(tmp_path, server.endpoint)
    assert done.returncode == 0, done.stderr
    made = tmp_path / "models" / "clip-vit-b-32"
    assert done.stdout.strip() == str(made)
    assert (made / "image.onnx").read_bytes() == (tiny_folder / "onnx" / "vision_model.onnx").read_bytes()
    assert done.stderr.splitlines()[0] == "asking the hub for Xenova/clip-vit-base-patch32"
    assert "%" not in done.stderr  # no bar where nobody looks


def test_a_spoilt_file_is_refused(server: type[Hub], tmp_path: Path) -> None:
    server.spoilt = b"!!!!"
    done = pull(tmp_path, server.endpoint)
    assert done.returncode == 4 and done.stdout == ""
    assert "has the wrong hash" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("more", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_no_network_at_all(tmp_path: Path, more: dict[str, str]) -> None:
    with socket.socket() as taken:  # a port where surely nobody listens
        taken.bind(("127.0.0.1", 0))
        done = pull(tmp_path, f"http://127.0.0.1:{taken.getsockname()[1]}", **more)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the Hugging Face hub can't be reached" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and not (tmp_path / "models").exists()
