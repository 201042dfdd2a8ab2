"""The model store: finds or fetches what a url means and opens it as an `Archive`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

from modelserver.archives.archive import Archive, remove_file
from modelserver.archives.download import Downloads
from modelserver.archives.limits import Limits
from modelserver.archives.manifest import Manifest, check_runtime, read_manifest
from modelserver.archives.model_config import read_config
from modelserver.archives.model_directory import ModelDirectory, extract, link
from modelserver.archives.naming import check_model_name, is_remote, local_file_name
from modelserver.archives.unpack import unpack, unpack_any
from modelserver.archives.urls import AllowedUrls
from modelserver.errors import InvalidModel, ModelError, ModelNotFound
from modelserver.scratch import UNRECORDED, Claims
from modelserver.settings.table import Settings

_GUARDED = re.compile("(https?|file)://", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wishes:
    """What the caller says about the model; "" where it says nothing."""

    model_name: str
    handler: str
    runtime: str
    default_handler: str
    default_name: str


@dataclass(frozen=True, slots=True)
class _Found:
    """What a url means: a file or directory to open."""

    path: Path
    remote: bool = False  # a copy of something from elsewhere
    reused: bool = False  # that was there already

    @property
    def fetched(self) -> bool:
        """This call has made it."""
        return self.remote and not self.reused


class ArchiveStore:
    """Opens archives by url. Safe to use from several threads at once.

    `temp_dir` gets a folder `models` with one directory per opened archive. `allowed_urls` are regular expressions: one
    of them must match a remote url as a whole, whatever its case; also every url that a redirect leads to. `claims`
    hears of every file before it is made.
    """

    def __init__(
        self,
        model_store: Path | None,
        temp_dir: Path,
        allowed_urls: Sequence[str],
        claims: Claims = UNRECORDED,
        limits: Limits | None = None,
    ) -> None:
        self.model_store = model_store
        self.models = temp_dir.absolute() / "models"
        self._allowed = AllowedUrls(allowed_urls)
        self._claims = claims
        self._limits = limits or Limits()
        self._downloads = None
        if model_store is not None:
            self._downloads = Downloads(model_store, self._allowed, self._limits, claims)

    @classmethod
    def of(cls, settings: Settings, claims: Claims) -> Self:
        """As the settings want it."""
        urls = [pattern.pattern for pattern in settings.allowed_urls]
        limits = Limits(
            size=settings.max_archive_size, members=settings.max_archive_members, patience=settings.download_timeout
        )
        return cls(settings.model_store, settings.temp_dir, urls, claims, limits)

    def open(
        self,
        url: str,
        *,
        model_name: str | None = None,
        handler: str | None = None,
        runtime: str | None = None,
        default_handler: str | None = None,
        default_name: str | None = None,
        salvage: bool = False,
        s3_sse_kms: bool = False,
        reuse: bool = False,
    ) -> Archive:
        """Find, fetch, unpack and check a model; blocks. After an error nothing of it is left on disk.

        `salvage`: a file in the store that is no archive counts as an empty one. `s3_sse_kms`: the request of a
        download is signed. `reuse`: what an earlier server has downloaded is not in the way, it is opened.

        Name, handler and runtime beat what the manifest says, the defaults yield to it; "" counts as not given.
        Raises BadRequest, ModelNotFound, DownloadFailed, InvalidModel, ModelError, InternalError.
        """
        wishes = _Wishes(
            model_name=model_name or "",
            handler=handler or "",
            runtime=runtime or "",
            default_handler=default_handler or "",
            default_name=default_name or "",
        )
        check_model_name(wishes.model_name)
        if wishes.runtime:
            check_runtime(wishes.runtime)
        with ExitStack() as undo:
            found = self._find(url, signed=s3_sse_kms, reuse=reuse)
            if found.fetched:
                undo.callback(remove_file, found.path)
            location = self._place(found.path, url, salvage=salvage)
            undo.callback(location.remove)
            archive = replace(_describe(url, location, found, wishes), stored_as=self._stored_as(found.path))
            undo.pop_all()
        return archive

    def _place(self, source: Path, url: str, *, salvage: bool) -> ModelDirectory:
        if source.is_dir():
            return link(source, self.models, url, self._claims)
        how = partial(unpack_any if salvage else unpack, limits=self._limits)
        return extract(source, self.models, url, self._claims, how)

    def _stored_as(self, source: Path) -> str:
        assert self.model_store is not None
        stored = source.parent.resolve() == self.model_store.resolve()
        return source.name if stored else str(source.absolute())

    def stop(self) -> None:
        """End all downloads, allow no more. For any thread, and it does not block."""
        if self._downloads is not None:
            self._downloads.stop()

    def _find(self, url: str, *, signed: bool, reuse: bool) -> _Found:
        if self.model_store is None or self._downloads is None:
            raise ModelNotFound("Model store has not been configured.")
        if not url:
            raise ModelNotFound("empty url")
        if ".." in url:
            raise ModelNotFound(f"Relative path is not allowed in url: {url}")
        # A pattern as wide as `.*` must not turn names in the store into downloads.
        if is_remote(url) and self._allowed.admit(url):
            if reuse and (earlier := self._downloads.find(url)) is not None:
                return _Found(earlier, remote=True, reused=True)
            return _Found(self._downloads.fetch(url, signed=signed), remote=True)
        if _GUARDED.match(url):
            raise ModelNotFound(f"Given URL {url} does not match any allowed URL(s)")
        return _Found(_find_local(url, self.model_store))


def _find_local(url: str, model_store: Path) -> Path:
    not_found = ModelNotFound(f"Model not found at: {url}")
    name = local_file_name(url)
    if not name:
        raise not_found
    named = model_store / name
    try:
        if named.is_file():
            return named
        for directory in (Path(url), named):
            if directory.is_dir():
                return directory
    except OSError as error:  # a name too long, a folder that may not be searched
        raise not_found from error
    raise not_found


def _describe(url: str, location: ModelDirectory, found: _Found, wishes: _Wishes) -> Archive:
    manifest = read_manifest(location.path)
    stated = manifest or Manifest()
    handler = wishes.handler or stated.handler or wishes.default_handler
    if manifest is None and not handler and location.path.is_symlink():
        raise InvalidModel(f"Handler is not defined, and there is no manifest in the model directory: {url}")
    config, config_error = read_config(location.path, stated.config_file)
    return Archive(
        url=url,
        model_name=_name(stated, wishes),
        version=stated.model_version,
        handler=handler,
        runtime=_runtime(stated, wishes),
        location=location,
        manifest=manifest,
        config=config,
        config_error=config_error,
        downloaded=found.path if found.remote else None,
        reused=found.reused,
    )


def _name(manifest: Manifest, wishes: _Wishes) -> str:
    name = wishes.model_name or manifest.model_name or wishes.default_name
    if not name:
        raise InvalidModel("Model name is not defined.")
    check_model_name(name)
    return name


def _runtime(manifest: Manifest, wishes: _Wishes) -> str:
    runtime = wishes.runtime or manifest.runtime
    if runtime is None:
        raise InvalidModel("Runtime is not defined or invalid.")
    if runtime == "LSP":
        raise ModelError(f"Unsupported runtime: {runtime}")
    return runtime
