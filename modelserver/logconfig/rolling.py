"""Rolling files of a log4j2 configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from modelserver.logconfig.elements import Element
from modelserver.logconfig.plan import Rolling
from modelserver.logconfig.texts import Texts

KEPT: Final = 7  # archives with numbers, if the configuration does not say
SIZE_LIMIT: Final = 10 << 20  # bytes, if the configuration does not say

_SIZE: Final = re.compile(r"(?P<number>\d{1,15}(?:[.,]\d+)?)\s*(?P<unit>[KMGT]?)B?", re.IGNORECASE)
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_DATE_LOOKUP: Final = re.compile(r"\$\$?\{date:([^}]*)\}")
_PACKINGS: Final = (".zip", ".deflate", ".xz", ".zst", ".pack200")  # that log4j2 knows and this does not


def read_rolling(element: Element, texts: Texts) -> Rolling | None:
    """When and how the file of an appender rolls; None if it does not say how archives are named."""
    pattern = _pattern(element, texts)
    if not pattern:
        texts.complain(element, "without filePattern: the file does not roll")
        return None
    size = interval = 0
    modulate = at_start = False
    for policy in _policies(element):
        match policy.kind:
            case "sizebasedtriggeringpolicy":
                size = _size(policy, texts)
            case "timebasedtriggeringpolicy":
                interval = texts.number(policy, "interval", 1)
                modulate = texts.flag(policy, "modulate", default=False)
            case "onstartuptriggeringpolicy":
                at_start = True
            case _:
                texts.complain(policy, f"<{policy.kind}> has no effect")
    return Rolling(pattern, size, interval, modulate, at_start, _kept(element, pattern, texts))


def _pattern(element: Element, texts: Texts) -> str:
    """The pattern of the names of archives; a date that would be looked up for each of them is part of it."""
    pattern = texts.resolve(element, _DATE_LOOKUP.sub(r"%d{\1}", element.get("filepattern")))
    for packing in _PACKINGS:
        if pattern.endswith(packing):
            texts.complain(element, f"archives are packed as .gz, not as {packing}")
            pattern = f"{pattern.removesuffix(packing)}.gz"
    if not pattern or pattern.startswith("/"):
        return pattern
    return f"{str(Path.cwd()).replace('%', '%%')}/{pattern}"


def _policies(element: Element) -> Iterator[Element]:
    for child in element.children:
        if child.kind == "policies":
            yield from child.children
        elif child.kind.endswith("policy"):
            yield child


def _size(element: Element, texts: Texts) -> int:
    text = texts.get(element, "size", "10 MB")
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        texts.complain(element, f"size {text} is no size such as 10 MB, which is used instead")
        return SIZE_LIMIT
    return max(1, int(float(match["number"].replace(",", ".")) * _UNITS[match["unit"].upper()]))


def _kept(element: Element, pattern: str, texts: Texts) -> int:
    """How many archives stay. Those with dates and without a stated number all do, as log4j2 has it."""
    usual = 0 if "%d" in pattern else KEPT
    for strategy in element.all("defaultrolloverstrategy", "directwriterolloverstrategy"):
        if strategy.kind != "defaultrolloverstrategy":
            texts.complain(strategy, f"<{strategy.kind}> has no effect")
            continue
        for action in strategy.children:
            if action.kind not in ("max", "min", "fileindex", "compressionlevel"):
                texts.complain(action, f"<{action.kind}> has no effect: no other files are removed")
        return texts.number(strategy, "max", usual)
    return usual
