"""Whether a server can load an archive, found without importing or unpacking anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from model_archiver.content import TAR_GZ, Content, Unreadable, open_content
from model_archiver.finding import ERROR, REPACK, WARNING, Finding
from model_archiver.handler_place import source_file
from model_archiver.manifest_components.manifest import RuntimeType
from model_archiver.manifest_file import FILE_MEMBERS, PLACE, BadManifest, model_of, read_manifest
from model_archiver.member_checks import check_members, find_damage
from model_archiver.source_checks import check_handler, check_model_file, check_other_sources
from model_archiver.text_checks import check_config, check_requirements

_CHECKS: Final = {"modelFile": check_model_file, "configFile": check_config, "requirementsFile": check_requirements}


def verify(path: Path) -> list[Finding]:
    """What is wrong with an archive or a model directory, errors first; empty if a server can load it."""
    try:
        with open_content(path) as content:
            found = list(verify_content(content))
    except Unreadable as error:
        found = [Finding(ERROR, "", str(error), f"{error.remedy}.")]
    return sorted(found, key=lambda finding: finding.level != ERROR)


def verify_content(content: Content) -> Iterator[Finding]:
    """The findings in the order of the checks."""
    yield from check_members(content)
    if damage := find_damage(content):
        yield damage
        return
    try:
        document = read_manifest(content)
    except BadManifest as error:
        yield Finding(ERROR, PLACE, str(error), REPACK)
        return
    if document.get("runtime") == RuntimeType.LSP.value:
        yield Finding(ERROR, PLACE, "the runtime LSP, of handlers in C++, is not served", "Pack a handler in Python.")
        return
    yield from _manifest(content, document)
    model = model_of(document)
    yield from _files(content, model)
    if handler := model.get("handler"):
        yield from check_handler(content, handler)
    yield from check_other_sources(content, {source_file(content, handler or ""), model.get("modelFile")})


def _manifest(content: Content, document: dict[str, Any]) -> Iterator[Finding]:
    """What it leaves to the registration."""
    if PLACE not in content:
        yield _misplaced(content) or Finding(
            WARNING, "", f"no {PLACE}", "Give model_name and handler when the model is registered."
        )
        return
    model = model_of(document)
    if not model.get("modelName"):
        yield Finding(WARNING, PLACE, "no modelName", "Give model_name when the model is registered.")
    if not model.get("handler"):
        remedy = "Give handler when the model is registered, or default_service_handler."
        yield Finding(WARNING, PLACE, "no handler", remedy)


def _misplaced(content: Content) -> Finding | None:
    """A manifest where no server looks for it."""
    for member in content.members:
        if content.form == TAR_GZ and member.name == PLACE:
            problem = f"{PLACE} is at the root, where a tar archive has one folder that is left out"
            return Finding(ERROR, member.name, problem, "Put all files into one folder of the tar archive.")
        if member.place.endswith(f"/{PLACE}"):
            folder = member.place.removesuffix(f"/{PLACE}")
            problem = f"the manifest lies in {folder}/, not at the root, and is not found there"
            return Finding(ERROR, member.place, problem, f"Pack the content of {folder}, not the folder itself.")
    return None


def _files(content: Content, model: dict[str, str]) -> Iterator[Finding]:
    """The files that the manifest names."""
    for member in FILE_MEMBERS:
        name = model.get(member)
        if name and name not in content:
            problem = f"the manifest names it as {member}, but it is not in the archive"
            yield Finding(ERROR, name, problem, "Pack the archive again with this file.")
        elif name and member in _CHECKS:
            yield from _CHECKS[member](content, name)
