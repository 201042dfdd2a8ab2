"""What a client of gRPC has: modules that protoc makes from the project's `.proto` files, as clients make them."""

from __future__ import annotations

import atexit
import importlib
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc_tools
from grpc_tools import protoc

PROTOS = Path(__file__).parents[2] / "protos"
_FILES = (
    "inference.proto",
    "management.proto",
    "grpc_predict_v2.proto",
    "open_inference_grpc.proto",
    "google/rpc/status.proto",
    "google/rpc/error_details.proto",
)


@cache
def stub_folder() -> Path:
    """Where the modules lie; made once per process, importable from then on, removed when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="stubs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    included = Path(grpc_tools.__file__).parent / "_proto"
    options = [f"-I{PROTOS}", f"-I{included}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert not protoc.main(["protoc", *options, *_FILES])
    sys.path.append(str(folder))
    return folder


def module(name: str) -> ModuleType:
    """`inference_pb2`, `management_pb2_grpc`, `google.rpc.error_details_pb2`, ..."""
    stub_folder()
    return importlib.import_module(name)


def message(name: str, /, **fields: Any) -> Any:
    """A message of one of the services; those of Open Inference are the standard ones."""
    for source in map(module, ("inference_pb2", "management_pb2", "grpc_predict_v2_pb2")):
        if hasattr(source, name):
            return getattr(source, name)(**fields)
    raise AssertionError(name)
