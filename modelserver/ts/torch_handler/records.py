"""Tensors that a model has read from a file, moved back into a mapping of that file: processes share its pages."""

from __future__ import annotations

import struct
import zipfile
from collections import defaultdict
from typing import Any, Final

import torch

_HEAD: Final = 64  # bytes by which records are told apart at first
_WORTH: Final = 1 << 12  # bytes of a tensor, at least: a page
_NAME_LENGTHS: Final = struct.Struct("<26xHH")  # in the local header of a member
_HEADER_SIZE: Final = 30


def share_records(model: torch.nn.Module, path: str) -> None:
    """Let parameters and buffers that are on the CPU lie in the file where their very bytes are; leave the others."""
    tensors: list[torch.Tensor] = [*model.parameters(), *model.buffers()]
    if len({tensor.data_ptr() for tensor in tensors if tensor.numel()}) < sum(1 for each in tensors if each.numel()):
        return  # what one of them writes, the other one reads
    movable = [tensor for tensor in tensors if _is_movable(tensor)]
    records = Records(path) if movable else None
    for tensor in movable:
        assert records is not None
        if (mapped := records.like(tensor)) is not None:
            tensor.data = mapped


class Records:
    """The members of a zip file that are not compressed, as tensors. Writing into them does not change the file."""

    def __init__(self, path: str) -> None:
        self._places: defaultdict[tuple[int, bytes], list[int]] = defaultdict(list)  # size and head -> offsets
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:  # noqa: PTH123
            for member in archive.infolist():
                if member.compress_type == zipfile.ZIP_STORED and member.file_size >= _WORTH:
                    file.seek(member.header_offset)
                    offset = file.tell() + _HEADER_SIZE + sum(_NAME_LENGTHS.unpack(file.read(_HEADER_SIZE)))
                    file.seek(offset)
                    self._places[member.file_size, file.read(_HEAD)].append(offset)
            size = file.seek(0, 2)
        self._storage = torch.UntypedStorage.from_file(path, False, size)

    def like(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """A tensor of the same type, shape and bytes, None if there is none."""
        own = _bytes_of(tensor)
        for offset in self._places.get((own.numel(), bytes(own[:_HEAD].tolist())), ()):
            if offset % tensor.element_size() == 0:
                found: Any = torch.empty(0, dtype=tensor.dtype)
                found.set_(self._storage, offset // tensor.element_size(), tensor.shape, tensor.stride())
                if torch.equal(_bytes_of(found), own):
                    return torch.as_tensor(found)
        return None


def _is_movable(tensor: torch.Tensor) -> bool:
    return (
        tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and not tensor.is_quantized
        and tensor.is_contiguous()
        and tensor.nbytes == tensor.untyped_storage().nbytes() >= _WORTH
    )


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().reshape(-1).view(torch.uint8)
