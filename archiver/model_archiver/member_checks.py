"""Whether the members of an archive can be unpacked as they are meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import Final

from model_archiver.content import ENCRYPTED, FILE, LINK, MAR, TAR_GZ, Content, Member
from model_archiver.finding import ERROR, WARNING, Finding

_PIECE: Final = 1 << 20  # bytes
_LINKS: Final = {
    TAR_GZ: "a link: it is unpacked as an empty file",
    MAR: "a link: it is unpacked as a file that holds the link's target",
}


def check_members(content: Content) -> Iterator[Finding]:
    """Names and kinds that do not survive unpacking."""
    for member in content.members:
        yield from _name(member)
        yield from _kind(member, content.form)
    yield from _collisions(content)


def find_damage(content: Content) -> Finding | None:
    """The first file that cannot be read. Reads everything to its end: only then checksums are compared."""
    for member in content.members:
        if (
            member.kind == FILE
            and member.place
            and (found := _unread(member.name, partial(_read, content, member.place)))
        ):
            return found
    return _unread("", content.read_rest)


def _name(member: Member) -> Iterator[Finding]:
    if not member.place:
        problem = "its name leads out of the model directory, so the whole archive is refused"
        yield Finding(ERROR, member.name, problem, "Remove or rename it.")
    elif member.name.startswith("/"):
        yield Finding(WARNING, member.name, f"an absolute name, unpacked as {member.place}", "Rename it.")


def _kind(member: Member, form: str) -> Iterator[Finding]:
    if member.kind == ENCRYPTED:
        yield Finding(ERROR, member.name, "encrypted", "Pack it without a password.")
    elif member.kind == LINK:
        problem = _LINKS.get(form, "a link that leads nowhere")
        yield Finding(WARNING, member.name, problem, "Put the file in its place.")
    elif member.kind != FILE:
        yield Finding(WARNING, member.name, f"a {member.kind}, which is left out", "Remove it.")


def _collisions(content: Content) -> Iterator[Finding]:
    places = Counter(member.place for member in content.members if member.place)
    for place, count in places.items():
        if count > 1:
            yield Finding(WARNING, place, f"it is there {count} times, the last one counts", "Remove the others.")
    folders = {str(parent) for place in places for parent in PurePosixPath(place).parents}
    for place in sorted(folders & places.keys()):
        yield Finding(ERROR, place, "a file and a folder of one name cannot be unpacked", "Rename one of them.")


def _read(content: Content, place: str) -> None:
    with content.open(place) as file:
        while file.read(_PIECE):
            pass


def _unread(name: str, read: Callable[[], None]) -> Finding | None:
    try:
        read()
    except OSError as error:
        return Finding(ERROR, name, f"it cannot be read: {error.strerror or error}", "Copy or pack it again.")
    # Of the readers of the standard library, each has errors of its own for damaged data.
    except Exception as error:
        return Finding(ERROR, name, f"damaged: {error or type(error).__name__}", "Copy it again, or pack it again.")
    return None
