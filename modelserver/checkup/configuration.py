"""What is to be said about settings: values that cannot be used, and what the log of a start would warn of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modelserver.checkup.finding import Finding, Severity, error, remark
from modelserver.settings.faults import Fault
from modelserver.settings.notices import Notice
from modelserver.settings.table import Settings
from modelserver.settings.unserved import unserved_settings

_SEVERITIES = {"ERROR": Severity.WARN, "FATAL": Severity.WARN, "WARN": Severity.WARN}  # the server starts all the same
_UNSERVED = "Do without it, or stay with TorchServe for as long as you need it."


def examine_settings(settings: Settings, faults: Sequence[Fault]) -> Iterator[Finding]:
    """Everything that the settings themselves tell."""
    if settings.config_file is None:
        yield remark("configuration", "no configuration file is read: there is none")
    else:
        yield remark(settings.config_file, "this is the configuration file")
    yield from map(of_fault, faults)
    for notice in settings.notices:
        yield of_notice(notice, "configuration")
    for notice in unserved_settings(settings):
        yield of_notice(notice, "configuration", _UNSERVED)


def of_fault(fault: Fault) -> Finding:
    """A value that stops the start."""
    expected = f"expected {fault.expected}" if fault.expected else ""
    where = "configuration" if fault.source == "default" else fault.source
    return error(where, ", ".join(filter(None, (f"{fault.key}: {fault.reason}", expected))), "Correct it.")


def of_notice(notice: Notice, where: str, remedy: str = "") -> Finding:
    """A line of the log; its place moves to the front."""
    severity = _SEVERITIES.get(notice.level, Severity.INFO)
    return Finding(severity, notice.source or where, _without_place(notice), remedy)


def _without_place(notice: Notice) -> str:
    """`text (key, file:line)` as `key: text`."""
    text, _, place = notice.message.rpartition(" (")
    if not (notice.source and text and place.endswith(f"{notice.source})")):
        return notice.message
    key = place.removesuffix(f"{notice.source})").removesuffix(", ")
    return f"{key}: {text}" if key else text
