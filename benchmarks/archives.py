"""The archives that every server gets: the same files for all of them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.plan import Handler
from model_archiver import ModelArchiver, ModelArchiverConfig


class Archives:
    """A model store that is filled as archives are asked for."""

    def __init__(self, store: Path) -> None:
        self.store = store
        store.mkdir(parents=True, exist_ok=True)
        self._packed: dict[str, Path] = {}

    def of(self, handler: Handler) -> Path:
        """The archive of a handler, packed on the first call."""
        if handler.name not in self._packed:
            with tempfile.TemporaryDirectory(dir=self.store) as work:
                config = ModelArchiverConfig(
                    model_name=handler.name,
                    handler=str(handler.source),
                    version="1.0",
                    export_path=str(self.store),
                    archive_format="zip-store" if handler.make else "default",  # weights are no smaller when compressed
                    force=True,
                    **(handler.make(Path(work)) if handler.make else {}),
                )
                ModelArchiver.generate_model_archive(config)
            self._packed[handler.name] = self.store / f"{handler.name}.mar"
        return self._packed[handler.name]
