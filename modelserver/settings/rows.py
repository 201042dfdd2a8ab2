"""What is known about one setting, kept in the metadata of its dataclass field."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from modelserver.settings.forms import Form

T = TypeVar("T")

REGULAR: Final = ("<TS_KEY>",)  # the environment name that follows from the key
NO_ENV: Final[tuple[str, ...]] = ()
_METADATA: Final = "row"


@dataclass(frozen=True, slots=True)
class Row:
    """One key of a configuration file."""

    key: str
    form: Form[Any]
    help: str
    unit: str
    env: tuple[str, ...]  # environment names that override the key, strongest first
    jvm: bool  # accepted, but without effect where there is no JVM
    secret: bool  # never shown


def row(
    default: T,
    form: Form[T],
    help: str,
    *,
    unit: str = "",
    env: tuple[str, ...] = REGULAR,
    jvm: bool = False,
    secret: bool = False,
) -> T:
    """Declare a field of the table with a constant default."""
    unnamed = Row("", form, help, unit, env, jvm, secret)
    return dataclasses.field(default=default, metadata={_METADATA: unnamed})


def computed(
    factory: Callable[[], T], form: Form[T], help: str, *, unit: str = "", env: tuple[str, ...] = REGULAR
) -> T:
    """Declare a field of the table whose default is made anew for every instance."""
    unnamed = Row("", form, help, unit, env, jvm=False, secret=False)
    return dataclasses.field(default_factory=factory, metadata={_METADATA: unnamed})


def rows_of(settings: type[Any]) -> dict[str, Row]:
    """The rows of a table class by key, in the order of declaration; fields that are no keys are left out."""
    return {
        field.name: _named(field.name, field.metadata[_METADATA])
        for field in dataclasses.fields(settings)
        if _METADATA in field.metadata
    }


def _named(key: str, unnamed: Row) -> Row:
    env = (f"TS_{key.upper()}",) if unnamed.env is REGULAR else unnamed.env
    return dataclasses.replace(unnamed, key=key, env=env)
