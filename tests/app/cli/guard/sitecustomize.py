"""Watches a process for what the gallery must never do: open a socket, or load the workstation half.

Put on PYTHONPATH by the tests. Each offence raises, and is written to $POCKETCLIP_GUARD_LOG as well, so that code
which swallows the exception is caught too. $POCKETCLIP_GUARD_ALLOW names one package that may be loaded.
"""

import os
import sys

FORBIDDEN_MODULES = {
    "torch", "kivy", "onnx", "timm", "open_clip", "transformers", "tokenizers", "huggingface_hub", "distill", "export",
} - {os.environ.get("POCKETCLIP_GUARD_ALLOW")}  # fmt: skip


def watch(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook (PEP 578): sees sockets and imports, however they come about in Python."""
    offence = ""
    if event.startswith("socket."):
        offence = event
    elif event == "import" and str(arguments[0]).partition(".")[0] in FORBIDDEN_MODULES:
        offence = f"import {arguments[0]}"
    if offence:
        descriptor = os.open(os.environ["POCKETCLIP_GUARD_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{offence}\n".encode())
        os.close(descriptor)
        raise RuntimeError(f"forbidden here: {offence}")


sys.addaudithook(watch)
