"""What one archive may cost the server, whoever made it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of a download and of what is unpacked."""

    size: int = 1 << 38  # bytes: of the file that is downloaded, and of all that is unpacked from one
    members: int = 1 << 18  # files and folders of an archive
    patience: float = 60.0  # seconds: to connect, for the head of an answer, and without progress after that
