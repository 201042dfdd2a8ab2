"""The door for Python callers."""

from __future__ import annotations

from model_archiver.model_archiver_config import ModelArchiverConfig


class ModelArchiver:
    """Makes model archives."""

    @staticmethod
    def generate_model_archive(config: ModelArchiverConfig) -> None:
        """Write the archive that `config` describes. Raises ModelArchiverError, OSError, ValueError."""
        # Imported late: `python -m model_archiver.model_packaging` warns if the package has imported that module.
        from model_archiver.model_packaging import generate_model_archive

        generate_model_archive(config)
