"""What a file of weights is, judged by its content without loading it."""

from __future__ import annotations

import pickletools
import tempfile
import zipfile
from pathlib import PurePosixPath
from shutil import copyfileobj
from typing import IO, Final

from model_archiver.content import Content

_OWN: Final = ("torch", "collections", "_codecs", "builtins", "__builtin__", "copyreg", "numpy")  # of every state dict
_PICKLE_LIMIT: Final = 1 << 26  # bytes; only names are read, the numbers lie in files of their own
_MAGIC: Final = {b"\x7fELF": "shared library", b"\x80\x02": "pickle, as torch.save wrote it before version 1.6"}


def kind_of(content: Content, place: str) -> str:
    """In words; "" if the file is of no known kind. Raises what damaged archives raise."""
    with content.open(place) as file:
        head = file.read(16)
    if head.startswith(b"PK"):
        return _kind_of_zip(content, place)
    if head[8:9] == b"{" and PurePosixPath(place).suffix == ".safetensors":
        return "safetensors"
    if PurePosixPath(place).suffix == ".onnx":
        return "ONNX"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")


def _kind_of_zip(content: Content, place: str) -> str:
    with tempfile.TemporaryFile() as copy:  # a zip is read from its end, and members may be compressed
        with content.open(place) as file:
            copyfileobj(file, copy, 1 << 20)
        try:
            with zipfile.ZipFile(copy) as archive:
                return _kind_of_names(archive)
        except zipfile.BadZipFile:
            return ""


def _kind_of_names(archive: zipfile.ZipFile) -> str:
    names = {name.partition("/")[2]: name for name in archive.namelist()}
    if "constants.pkl" in names:
        return "TorchScript"
    if any(name.endswith((".so", ".wrapper.so")) and "aotinductor" in name for name in names):
        return "package compiled ahead of time (AOTInductor)"
    if any(name.startswith("models/") or name == "serialized_exported_program.json" for name in names):
        return "exported program (torch.export)"
    if "data.pkl" not in names:
        return ""
    with archive.open(names["data.pkl"]) as pickle:
        classes = _foreign_classes(pickle)
    if not classes:
        return "state dict (torch.save)"
    return f"pickled objects (torch.save), which need {', '.join(classes)}"


def _foreign_classes(pickle: IO[bytes]) -> list[str]:
    """The classes that unpickling would import besides torch's own; nothing is imported here."""
    found: dict[str, None] = {}
    texts: list[str] = []
    for opcode, argument, _ in pickletools.genops(pickle.read(_PICKLE_LIMIT)):
        if opcode.name == "GLOBAL":
            found[str(argument).replace(" ", ".")] = None
        elif opcode.name == "STACK_GLOBAL" and len(texts) >= 2:
            found[".".join(texts[-2:])] = None
        elif isinstance(argument, str):
            texts.append(argument)
    return [name for name in found if name.partition(".")[0] not in _OWN]
