"""Image transforms with Pillow and torch alone, numerically equal to those of torchvision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image

# Pixel modes whose samples are not bytes.
_SAMPLES = {"I": torch.int32, "I;16": torch.int16, "F": torch.float32}


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: Any) -> Any:
        for transform in self.transforms:
            image = transform(image)
        return image


class ToRGB:
    """Grey, palette and transparent images as RGB; RGB images as they are."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return image if image.mode == "RGB" else image.convert("RGB")


class Resize:
    """The shorter side to `size` pixels, the longer in proportion; bilinear, antialiased."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        if width <= height:
            target = (self.size, int(self.size * height / width))
        else:
            target = (int(self.size * width / height), self.size)
        return image if target == image.size else image.resize(target, Image.Resampling.BILINEAR)


class CenterCrop:
    """The middle square of `size` pixels a side; what an image lacks is black."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        left, top = _margin(width, self.size), _margin(height, self.size)
        return image.crop((left, top, left + self.size, top + self.size))


class ToTensor:
    """Channels x height x width; bytes become floats in 0..1, other samples keep their values."""

    def __call__(self, image: Image.Image) -> torch.Tensor:
        if image.mode == "1":
            image = image.convert("L")
        samples = _SAMPLES.get(image.mode, torch.uint8)
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=samples)
        width, height = image.size
        tensor = pixels.view(height, width, len(image.getbands())).permute(2, 0, 1).contiguous()
        return tensor.to(torch.float32).div(255) if samples is torch.uint8 else tensor


class Normalize:
    """`(x - mean) / std` for each channel of a channels x height x width tensor."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = tuple(mean)
        self.std = tuple(std)

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        # The constants become tensors here, not in __init__: importing a handler must run no torch operation.
        mean = torch.tensor(self.mean, dtype=tensor.dtype, device=tensor.device).view(-1, 1, 1)
        std = torch.tensor(self.std, dtype=tensor.dtype, device=tensor.device).view(-1, 1, 1)
        return tensor.sub(mean).div_(std)


def _margin(length: int, size: int) -> int:
    """Pixels to cut at the beginning of a side; negative where the side is too short."""
    if length < size:
        return -((size - length) // 2)
    return round((length - size) / 2)
