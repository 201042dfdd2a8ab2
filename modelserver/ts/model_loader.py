"""Loads a handler with its model outside of a server, for unit tests of handlers for instance."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any
from uuid import uuid4

from ts.entry_point import Class, Function, HandlerBroken, HandlerMissing, find_envelope, find_handler
from ts.service import Service


class ModelLoader(ABC):
    """Makes services."""

    @abstractmethod
    def load(
        self,
        model_name: str,
        model_dir: str,
        handler: str | None = None,
        gpu_id: int | None = None,
        batch_size: int | None = None,
        envelope: str | None = None,
        limit_max_image_pixels: bool = True,
        metrics_cache: Any = None,
    ) -> Service:
        """The service of a model, loaded."""


class ModelLoaderFactory:
    """Chooses the loader; there is one."""

    @staticmethod
    def get_model_loader() -> ModelLoader:
        """A new loader."""
        return TsModelLoader()


class TsModelLoader(ModelLoader):
    """Loads model directories as they are unpacked from archives."""

    def load(
        self,
        model_name: str,
        model_dir: str,
        handler: str | None = None,
        gpu_id: int | None = None,
        batch_size: int | None = None,
        envelope: str | None = None,
        limit_max_image_pixels: bool = True,
        metrics_cache: Any = None,
    ) -> Service:
        """Raises what the handler raises; `ValueError`, `TypeError` or `ModuleNotFoundError` where there is none."""
        if metrics_cache is not None:
            metrics_cache.model_name = model_name
            metrics_cache.set_request_ids(str(uuid4()))
        manifest = _manifest(Path(model_dir))
        service = Service(
            model_name, model_dir, manifest, None, gpu_id, batch_size, limit_max_image_pixels, metrics_cache
        )
        entry = _find(handler or "", Path(model_dir))
        wrapper = find_envelope(envelope) if envelope else None
        service.entry_point = _load(entry, service)
        if wrapper is not None:
            service.entry_point = wrapper(service.entry_point).handle
        return service


def _manifest(model_dir: Path) -> dict[str, Any] | None:
    path = model_dir / "MAR-INF" / "MANIFEST.json"
    manifest: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return manifest


def _find(handler: str, model_dir: Path) -> Function | Class:
    try:
        return find_handler(handler, model_dir)
    except (HandlerMissing, HandlerBroken) as error:
        raise error.__cause__ or error from error


def _load(entry: Function | Class, service: Service) -> Any:
    try:
        return entry.load(service.context)
    except HandlerBroken as error:
        raise error.__cause__ or error from error
