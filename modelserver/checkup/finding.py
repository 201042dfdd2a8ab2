"""What a check has found, as data, and how it reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from modelserver.settings.notices import printable


class Severity(StrEnum):
    """How much it matters."""

    ERROR = "ERROR"  # the server does not start, or something in it does not serve
    WARN = "WARN"  # it serves, and probably not as somebody wanted
    INFO = "INFO"  # worth knowing


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what is where, and what to do about it ("" where nothing needs to be done)."""

    severity: Severity
    where: str  # `file:line`, an archive, an address, ...
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        what = self.what if self.what.endswith((".", "?", "!")) else f"{self.what}."
        return printable(f"{self.severity} {self.where}: {what} {self.remedy}".rstrip())

    def at_most(self, severity: Severity) -> Finding:
        """The same, made no worse than this."""
        order = list(Severity)
        return replace(self, severity=max(self.severity, severity, key=order.index))


def error(where: object, what: str, remedy: str = "") -> Finding:
    """What keeps something from being served."""
    return Finding(Severity.ERROR, str(where), what, remedy)


def warning(where: object, what: str, remedy: str = "") -> Finding:
    """What is served otherwise than somebody may have wanted."""
    return Finding(Severity.WARN, str(where), what, remedy)


def remark(where: object, what: str, remedy: str = "") -> Finding:
    """What is worth knowing."""
    return Finding(Severity.INFO, str(where), what, remedy)


def exit_status(findings: Sequence[Finding]) -> int:
    """1 if anything is an error."""
    return int(any(finding.severity is Severity.ERROR for finding in findings))


def summary(findings: Sequence[Finding]) -> str:
    """The last line."""
    counts = {severity: sum(finding.severity is severity for finding in findings) for severity in Severity}
    verdict = "not ready" if counts[Severity.ERROR] else "ready"
    told = (
        _count(counts[Severity.ERROR], "error"),
        _count(counts[Severity.WARN], "warning"),
        _count(counts[Severity.INFO], "remark"),
    )
    return f"This deployment is {verdict}: {', '.join(told)}."


def as_json(findings: Sequence[Finding]) -> str:
    """Everything for programs: `ready`, and `findings` with severity, where, what and remedy."""
    tree = {
        "ready": exit_status(findings) == 0,
        "findings": [
            {"severity": str(one.severity), "where": one.where, "what": one.what, "remedy": one.remedy}
            for one in findings
        ],
    }
    return json.dumps(tree, indent=2)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
