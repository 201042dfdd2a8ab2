"""What a verification finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ERROR: Final = "error"  # the server refuses the archive, or its workers fail
WARNING: Final = "warning"
REPACK: Final = "Correct it and pack the archive again."


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, where, and what to do about it."""

    level: str
    place: str  # a file in the archive, with a line where there is one; "" for the archive itself
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}. {self.remedy}" if self.place else f"{self.problem}. {self.remedy}"
