"""Whether the Python sources of an archive are what a server needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from model_archiver.content import Content
from model_archiver.finding import ERROR, REPACK, WARNING, Finding
from model_archiver.handler_entry import NoEntry, find_classes, find_entry
from model_archiver.handler_place import source_file, split_handler


def check_handler(content: Content, handler: str) -> Iterator[Finding]:
    """That it is there, is Python, and can be called."""
    place = source_file(content, handler)
    if place is None:
        yield _nowhere(content, handler)
    elif place:
        yield from _python(place, lambda: _no_entry(content.read(place), split_handler(handler)[2]))


def check_model_file(content: Content, name: str) -> Iterator[Finding]:
    """That it is Python, and has the one class that built-in handlers look for."""

    def problem() -> str:
        classes = find_classes(content.read(name))
        return "" if len(classes) == 1 else f"the built-in handlers want one class in it, there are {len(classes)}"

    yield from _python(name, problem, WARNING)


def check_other_sources(content: Content, known: set[str | None]) -> Iterator[Finding]:
    """Warns only: nothing may import them any more."""
    for place in (file.place for file in content.files):
        if place.endswith(".py") and place not in known:
            for found in _python(place, lambda place=place: _unread(content, place)):  # type: ignore[misc]
                yield Finding(WARNING, found.place, found.problem, found.remedy)


def _nowhere(content: Content, handler: str) -> Finding:
    folder, module, _ = split_handler(handler)
    if folder and f"{folder}/{module}.py" in content:
        problem = "only the name of a handler's file counts, without its folder, unless a function is named too"
        return Finding(ERROR, handler, problem, "Put the file at the root, or name the function: file.py:function.")
    problem = "the handler is neither in the archive nor a handler of the server nor an installed package"
    return Finding(ERROR, handler, problem, "Pack the archive again with the handler's file.")


def _no_entry(source: bytes, function: str) -> str:
    try:
        find_entry(source, function)
    except NoEntry as error:
        return str(error)
    return ""


def _unread(content: Content, place: str) -> str:
    find_classes(content.read(place))
    return ""


def _python(place: str, problem: Callable[[], str], level: str = ERROR) -> Iterator[Finding]:
    """An error if the source is no Python; else what `problem` says, at this level."""
    try:
        found = problem()
    except SyntaxError as error:
        where = f"{place}, line {error.lineno}" if error.lineno else place
        yield Finding(ERROR, where, f"not Python: {error.msg}", REPACK)
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes, nesting too deep
        yield Finding(ERROR, place, f"not Python: {error or type(error).__name__}", REPACK)
    else:
        if found:
            yield Finding(level, place, found, REPACK)
