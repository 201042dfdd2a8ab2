"""Writes `modelserver/rpc/messages.py` from the `.proto` files here: `python protos/generate.py`.

Not the modules that protoc writes: those enter the descriptors into a pool that every library of a process shares,
where they clash with the stubs of clients, and they refuse to run with an older protobuf than protoc's own.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

PROTOS = Path(__file__).parent
FILES = (
    "inference.proto",
    "management.proto",
    "grpc_predict_v2.proto",
    "open_inference_grpc.proto",
    "health.proto",
    "google/rpc/error_details.proto",
    "modelserver/ordered.proto",
    "modelserver/routed.proto",
)
TARGET = PROTOS.parent / "modelserver" / "rpc" / "messages.py"
HEAD = '''"""Messages and services of gRPC. Written by `protos/generate.py` from `protos/`: do not edit.

Their descriptors live in a pool of their own, so that stubs of clients in the same process do not clash with them.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

POOL: Final = DescriptorPool()


def _message(name: str) -> Any:
    return GetMessageClass(POOL.FindMessageTypeByName(name))


# fmt: off
'''
CONSTANTS = {
    "org.pytorch.serve.grpc.inference.InferenceAPIsService": "INFERENCE_SERVICE",
    "org.pytorch.serve.grpc.management.ManagementAPIsService": "MANAGEMENT_SERVICE",
    "org.pytorch.serve.grpc.openinference.GRPCInferenceService": "TORCHSERVE_OPEN_INFERENCE_SERVICE",
    "inference.GRPCInferenceService": "OPEN_INFERENCE_SERVICE",
    "grpc.health.v1.Health": "HEALTH_SERVICE",
}
TWINS = "org.pytorch.serve.grpc.openinference"  # its messages have the bytes of those of `inference`, which are read
OWN = "modelserver."  # packages of messages that the server reads in a way of its own
BYTES_PER_LINE = 25


def compile_protos() -> list[FileDescriptorProto]:
    """The files and all that they import, in the order in which they can be entered into a pool."""
    included = Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory, "set")
        options = [f"-I{PROTOS}", f"-I{included}", "--include_imports", f"--descriptor_set_out={target}"]
        if protoc.main(["protoc", *options, *FILES]):
            raise SystemExit("protoc failed")
        return list(FileDescriptorSet.FromString(target.read_bytes()).file)


def python_module(files: list[FileDescriptorProto]) -> str:
    """The text of the module."""
    entries = "".join(
        f"# {file.name}\nPOOL.AddSerializedFile(\n{literal(file.SerializeToString())})\n" for file in files
    )
    classes = [
        declaration(file, message)
        for file in files
        for message in file.message_type
        if message.name != "Any" and file.package != TWINS
    ]
    services = [
        f'{CONSTANTS[f"{file.package}.{service.name}"]}: Final = "{file.package}.{service.name}"\n'
        for file in files
        for service in file.service
    ]
    return HEAD + "".join(entries) + "# fmt: on\n\n" + "".join(services) + "\n" + "".join(classes)


def literal(data: bytes) -> str:
    """Bytes as Python text, in lines."""
    lines = [data[start : start + BYTES_PER_LINE] for start in range(0, len(data), BYTES_PER_LINE)]
    return "".join(f"    {line!r}\n" for line in lines)


def declaration(file: FileDescriptorProto, message: DescriptorProto) -> str:
    """A message as a constant; the server's own reading of one is marked by its package."""
    name = message.name
    if file.package.startswith(OWN):
        name = f"{file.package.removeprefix(OWN).capitalize()}{name}"
    return f'{name} = _message("{file.package}.{message.name}")\n'


if __name__ == "__main__":
    TARGET.write_text(python_module(compile_protos()))
