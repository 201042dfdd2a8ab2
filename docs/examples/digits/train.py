"""Train the digits network on the handwritten digits that come with scikit-learn.

    python train.py --output model.pt

Takes seconds on two cores, and fails unless the network reads 97 % of the held-out scans. `--scans DIR` also writes
one held-out scan of every digit as a picture to send to the server.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from model import DigitNet
from PIL import Image
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from torch import nn

SIDE = 8  # pixels
LEVELS = 16  # ink levels of a scan above black
GREY_STEP = 15  # grey values from one ink level to the next in a picture; the handler divides them out again
HELD_OUT = 360  # of 1797 scans
EPOCHS = 25
BATCH = 64
PICTURE_SIDE = 64  # pixels
REQUIRED_ACCURACY = 0.97


class Split(NamedTuple):
    """Scans (N, 1, 8, 8) in 0..1 and their digits (N,), to train on and held out."""

    scans: torch.Tensor
    digits: torch.Tensor
    held_scans: torch.Tensor
    held_digits: torch.Tensor


def load_split() -> Split:
    """The data set in a fixed shuffled order, its last part held out."""
    raw, labels = load_digits(return_X_y=True)
    order = numpy.random.default_rng(seed=0).permutation(len(labels))
    scans = torch.from_numpy(raw[order] / LEVELS).float().reshape(-1, 1, SIDE, SIDE)
    digits = torch.from_numpy(labels[order]).long()
    return Split(scans[:-HELD_OUT], digits[:-HELD_OUT], scans[-HELD_OUT:], digits[-HELD_OUT:])


def train(split: Split) -> DigitNet:
    """A network fitted to the training part; the same on every run of one torch build."""
    torch.set_num_threads(1)  # its operations are small: on a busy machine threads would mostly wait for each other
    torch.manual_seed(0)
    network = DigitNet()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    loss_of = nn.CrossEntropyLoss()
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(split.digits)), BATCH):
            optimizer.zero_grad()
            loss_of(network(split.scans[rows]), split.digits[rows]).backward()
            optimizer.step()
    return network.eval()


def accuracy(network: DigitNet, scans: torch.Tensor, digits: torch.Tensor) -> float:
    """Share of scans read right, 0..1."""
    with torch.inference_mode():
        return float((network(scans).argmax(dim=1) == digits).float().mean())


def write_scans(split: Split, directory: Path) -> None:
    """One held-out scan of every digit as `<digit>.png`, enlarged, grey."""
    for digit in range(10):
        scan = split.held_scans[split.held_digits == digit][0, 0]
        grey = (scan.numpy() * LEVELS * GREY_STEP).round().astype(numpy.uint8)
        picture = Image.fromarray(grey).resize((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.NEAREST)
        picture.save(directory / f"{digit}.png", optimize=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train the digits example.")
    parser.add_argument("--output", type=Path, default=Path("model.pt"), help="where the state dict goes")
    parser.add_argument("--scans", type=Path, help="also write one held-out scan of every digit into this directory")
    options = parser.parse_args(arguments)

    split = load_split()
    network = train(split)
    reached = accuracy(network, split.held_scans, split.held_digits)
    print(f"read {reached:.1%} of {HELD_OUT} held-out scans")
    if reached < REQUIRED_ACCURACY:
        print(f"fewer than {REQUIRED_ACCURACY:.0%}: nothing written", file=sys.stderr)
        return 1

    options.output.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), options.output)
    if options.scans:
        write_scans(split, options.scans)
    return 0


if __name__ == "__main__":
    sys.exit(main())
