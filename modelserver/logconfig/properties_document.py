"""log4j2's properties as the same tree: `appender.out.layout.type = PatternLayout`."""

from __future__ import annotations

import io
from typing import Any

import javaproperties

from modelserver.logconfig.elements import DEEPEST, Element, Malformed

_LISTS = ("appenders", "loggers", "filters")  # older files name their parts; the keys say the same
_ROOT = ("rootlogger", "root")


def read_properties(text: bytes) -> Element:
    """A root element. Raises Malformed, for the keys of log4j 1.x too."""
    try:
        keys = javaproperties.load(io.BytesIO(text))
    except ValueError as error:
        raise Malformed(str(error)) from None
    if any(key.startswith("log4j.") for key in keys):
        raise Malformed("it is written for log4j 1.x, which is not understood: log4j2 has other keys")
    if deep := next((key for key in keys if key.count(".") > DEEPEST), ""):
        raise Malformed(f"{deep[:40]}... has more than {DEEPEST} parts")
    return _configuration(_nested(keys))


def _nested(keys: dict[str, str]) -> dict[str, Any]:
    """Keys with dots as dictionaries in dictionaries; the value of a key that has further ones below is under ""."""
    tree: dict[str, Any] = {}
    for key, value in keys.items():
        *path, last = key.split(".")
        branch = tree
        for name in path:
            inner = branch.setdefault(name, {})
            if not isinstance(inner, dict):
                inner = branch[name] = {"": inner}
            branch = inner
        if isinstance(branch.get(last), dict):
            branch[last][""] = value
        else:
            branch[last] = value
    return tree


def _configuration(tree: dict[str, Any]) -> Element:
    root = Element("configuration", "")
    for name, branch in tree.items():
        match name.lower(), branch:
            case "property", dict():
                root.children.append(_properties(branch))
            case "appender", dict():
                root.children.append(_group("appenders", branch))
            case "filter", dict():
                root.children.append(_group("filters", branch))
            case "logger", dict():
                loggers = [_logger("logger", f"logger.{key}", each) for key, each in branch.items()]
                root.children.append(Element("loggers", "logger", children=loggers))
            case lower, _ if lower in _ROOT:
                loggers = [_logger("root", name, branch)]
                root.children.append(Element("loggers", name, children=loggers))
            case lower, str() if lower not in _LISTS:
                root.attributes[lower] = branch
    return root


def _properties(branch: dict[str, Any]) -> Element:
    flat = [Element("property", f"property.{name}", {"name": name, "value": value}) for name, value in _flat(branch)]
    return Element("properties", "property", children=flat)


def _flat(branch: dict[str, Any]) -> list[tuple[str, str]]:
    """Names of properties may have dots themselves."""
    pairs: list[tuple[str, str]] = []
    for name, value in branch.items():
        if isinstance(value, dict):
            pairs += [(f"{name}.{rest}" if rest else name, text) for rest, text in _flat(value)]
        else:
            pairs.append((name, value))
    return pairs


def _group(kind: str, branch: dict[str, Any]) -> Element:
    place = kind.rstrip("s")
    return Element(kind, place, children=[_component(f"{place}.{key}", key, each) for key, each in branch.items()])


def _component(place: str, key: str, branch: Any) -> Element:
    """One part by its `type`, with its attributes and the parts in it."""
    if not isinstance(branch, dict):
        return Element(key.lower(), place, {"value": branch})
    if key == "filter" and "type" not in branch:
        key = "filters"  # `filter.<id>.type`: several, by names that mean nothing
    element = Element(str(branch.get("type", key)).lower(), place)
    for name, value in branch.items():
        if name == "type":
            continue
        if isinstance(value, str):
            element.attributes[name.lower()] = value
        elif name.lower() == "appenderref":
            element.children += _references(place, value)
        else:
            element.children.append(_component(f"{place}.{name}", name, value))
    return element


def _logger(kind: str, place: str, branch: Any) -> Element:
    """A logger; `logger.x = DEBUG, out` is short for its level and references."""
    if not isinstance(branch, dict):
        branch = {"": branch}
    element = Element(kind, place)
    short, *references = [part.strip() for part in str(branch.get("", "")).split(",")]
    if short:
        element.attributes["level"] = short
    element.children += [Element("appenderref", place, {"ref": each}) for each in references if each]
    if kind == "logger" and "name" not in branch:
        element.attributes["name"] = place.removeprefix("logger.")
    for name, value in branch.items():
        if isinstance(value, str) and name not in ("", "appenderRefs"):
            element.attributes[name.lower()] = value
        elif name.lower() == "appenderref":
            element.children += _references(place, value)
    return element


def _references(place: str, branch: Any) -> list[Element]:
    return [
        _component(f"{place}.appenderRef.{key}", "appenderref", {"type": "appenderref", **each})
        for key, each in branch.items()
        if isinstance(each, dict)
    ]
