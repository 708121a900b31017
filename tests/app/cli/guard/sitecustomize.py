"""Stops a process from doing what the gallery must never do: open a socket, or load the workstation half.

Tests put this on PYTHONPATH. Each offense raises an exception, and is also written to $POCKETCLIP_GUARD_LOG, in case
the exception is caught. $POCKETCLIP_GUARD_ALLOW names one package that may be loaded.
"""

import os
import sys

FORBIDDEN_MODULES = {
    "torch", "kivy", "onnx", "timm", "open_clip", "transformers", "tokenizers", "huggingface_hub", "distill", "export",
} - {os.environ.get("POCKETCLIP_GUARD_ALLOW")}  # fmt: skip


def watch(event: str, arguments: tuple[object, ...]) -> None:
    """Audit hook (PEP 578) that sees all sockets and imports in Python."""
    offense = ""
    if event.startswith("socket."):
        offense = event
    elif event == "import" and str(arguments[0]).partition(".")[0] in FORBIDDEN_MODULES:
        offense = f"import {arguments[0]}"
    if offense:
        descriptor = os.open(os.environ["POCKETCLIP_GUARD_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{offense}\n".encode())
        os.close(descriptor)
        raise RuntimeError(f"forbidden here: {offense}")


sys.addaudithook(watch)
