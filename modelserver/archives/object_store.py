"""Archives from object stores (`s3://`, `gs://`, `az://`), through fsspec and the extra of the store's kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

_BLOCK: Final = 8 << 20  # bytes of one request


@dataclass(frozen=True, slots=True)
class _Kind:
    extra: str  # of this package: what reads such urls
    options: Callable[[float], dict[str, Any]]  # that limit the seconds which a request may take


_S3: Final = _Kind("s3", lambda limit: {"config_kwargs": {"connect_timeout": limit, "read_timeout": limit}})
_GS: Final = _Kind("gs", lambda limit: {"requests_timeout": limit})
_AZURE: Final = _Kind("azure", lambda limit: {"connection_timeout": limit, "read_timeout": limit})

KINDS: Final[Mapping[str, _Kind]] = {
    "s3": _S3,
    "s3a": _S3,
    "gs": _GS,
    "gcs": _GS,
    "az": _AZURE,
    "abfs": _AZURE,
    "abfss": _AZURE,
}


class StoredObject:
    """One object. Who may read it is a matter of the environment, as with every program that uses such a store."""

    encoding = ""

    def __init__(self, url: str, patience: float) -> None:
        """Raises ValueError."""
        if "::" in url:  # to fsspec it means one url inside another
            raise ValueError("the URL contains `::`")
        scheme, _, rest = url.partition("://")
        self._url = f"{scheme.lower()}://{rest}"
        self._patience = patience
        self._file: Any = None
        self._ended: str | None = None
        self._received = 0
        self.size: int | None = None

    def open(self) -> None:
        """Raises ImportError if the extra is missing, and what the store's client raises."""
        system, path = _file_system(self._url, self._patience)
        self.size = system.info(path)["size"]
        self._file = system.open(path, "rb", block_size=_BLOCK, cache_type="readahead")

    def read(self, limit: int) -> bytes:
        """Raises OSError, and what the store's client raises."""
        if self._ended is not None:
            raise OSError(self._ended)
        piece: bytes = self._file.read(limit)
        self._received += len(piece)
        if not piece and self._received != self.size:
            raise OSError(f"got {self._received} of {self.size} bytes")
        return piece

    def cut(self, reason: str) -> None:
        """The next `read` fails; one that waits for the store has a limit of its own."""
        self._ended = reason

    def close(self) -> None:
        """Close the object."""
        if self._file is not None:
            self._file.close()


def _file_system(url: str, patience: float) -> tuple[Any, str]:
    """The client of the store, and the object's path in it."""
    scheme = urlsplit(url).scheme
    kind = KINDS[scheme]
    try:
        # Not with the module: most servers never need it, and it takes a while.
        from fsspec.core import url_to_fs

        system, path = url_to_fs(url, **kind.options(patience), skip_instance_cache=True, use_listings_cache=False)
    except ImportError as error:
        remedy = f"pip install 'modelserver[{kind.extra}]'"
        raise ImportError(f"{scheme}:// needs the extra {kind.extra}: {remedy}") from error
    return system, path
