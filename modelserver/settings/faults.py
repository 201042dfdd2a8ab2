"""What a configuration cannot be used for, as data: the server stops at the first, the check tells all of them."""

from __future__ import annotations

from dataclasses import dataclass

from modelserver.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Fault:
    """A key with a value that cannot be used."""

    key: str
    source: str  # `file:line`, `environment TS_X`, ...
    reason: str
    expected: str = ""  # the form in words, where the text itself is wrong

    def __str__(self) -> str:
        """As the server prints it."""
        text = f"{self.reason} ({self.key}, {self.source})"
        return f"{text}: expected {self.expected}" if self.expected else text

    def error(self) -> ConfigurationError:
        """What stops the start."""
        return ConfigurationError(str(self))
