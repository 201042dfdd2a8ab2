"""The steps of packing, under the names that scripts call."""

from __future__ import annotations

import logging
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from model_archiver.formats import (
    MANIFEST_FILE_NAME,
    MAR_INF,
    SUFFIXES,
    add_to_folder,
    add_to_tar,
    add_to_zip,
    suffix,
    write_archive,
)
from model_archiver.handler_file import BUILT_IN_HANDLERS, handler_file
from model_archiver.manifest_components.manifest import Manifest
from model_archiver.manifest_components.model import Model
from model_archiver.model_archiver_config import ModelArchiverConfig
from model_archiver.model_archiver_error import ModelArchiverError
from model_archiver.staging import is_packed_folder, stage_extra_files, stage_file

archiving_options: Final = SUFFIXES
model_handlers: Final = BUILT_IN_HANDLERS
MODEL_SERVER_VERSION: Final = "1.0"
MODEL_ARCHIVE_VERSION: Final = "1.0"

_MODEL_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_\-.]*$"
_UNWANTED_FILES: Final = (MANIFEST_FILE_NAME, ".DS_Store")
_UNWANTED_SUFFIXES: Final = (".pyc", ".mar")

_logger = logging.getLogger(__name__)


class ModelExportUtils:
    """Names and checks of the output, the tree of artifacts, the archive."""

    @staticmethod
    def get_archive_export_path(export_file_path: str, model_name: str, archive_format: str) -> str:
        """The file (or folder, for `no-archive`) that is written."""
        return str(Path(export_file_path, model_name + suffix(archive_format)))

    @staticmethod
    def check_mar_already_exists(
        model_name: str, export_file_path: str | None, overwrite: bool, archive_format: str = "default"
    ) -> str:
        """The directory to export to. Raises ModelArchiverError if the output exists and may not be overwritten."""
        export_path = export_file_path or str(Path.cwd())
        output = ModelExportUtils.get_archive_export_path(export_path, model_name, archive_format)
        if Path(output).exists():
            if not overwrite:
                raise ModelArchiverError(
                    f"{output} already exists.\n"
                    "Please specify --force/-f option to overwrite the model archive output file.\n"
                    "See -h/--help for more details."
                )
            _logger.warning("Overwriting %s ...", output)
        return export_path

    @staticmethod
    def find_unique(files: Iterable[str], suffix: str) -> str | None:
        """The only name with this suffix, None if there is none. Raises ModelArchiverError for several."""
        found = [name for name in files if name.endswith(suffix)]
        if len(found) > 1:
            raise ModelArchiverError(
                f"model-archiver expects only one {suffix} file in the folder. "
                f"Found {len(found)} files {found} in model-path."
            )
        return found[0] if found else None

    @staticmethod
    def generate_model(modelcfg: ModelArchiverConfig) -> Model:
        """The `model` member of the manifest."""
        return Model(
            model_name=modelcfg.model_name,
            serialized_file=modelcfg.serialized_file,
            handler=modelcfg.handler,
            model_file=modelcfg.model_file,
            model_version=modelcfg.version,
            requirements_file=modelcfg.requirements_file,
            config_file=modelcfg.config_file,
        )

    @staticmethod
    def generate_manifest_json(config: ModelArchiverConfig) -> str:
        """The text of the manifest. Raises ValueError for an unknown runtime."""
        return str(Manifest(runtime=config.runtime, model=ModelExportUtils.generate_model(config)))

    @staticmethod
    def clean_temp_files(temp_files: Iterable[str]) -> None:
        """Delete files and trees."""
        for name in temp_files:
            path = Path(name)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    @staticmethod
    def make_dir(d: str) -> None:
        """Make a directory unless it exists."""
        Path(d).mkdir(parents=True, exist_ok=True)

    @staticmethod
    def copy_artifacts(model_name: str, runtime: str, **kwargs: str | None) -> str:
        """A new private directory whose files are links to the artifacts; the caller deletes it.

        Artifacts by kind: model_file, serialized_file, handler, extra_files, requirements-file, config_file.
        Raises OSError.
        """
        tree = Path(tempfile.mkdtemp(prefix=f"{model_name}-"))
        try:
            for kind, artifact in kwargs.items():
                path = handler_file(artifact, runtime) if kind == "handler" and artifact is not None else artifact
                if kind == "extra_files":
                    stage_extra_files(path or "", tree)
                elif path:
                    stage_file(Path(path), tree)
        except BaseException:
            shutil.rmtree(tree)
            raise
        return str(tree)

    @staticmethod
    def archive(
        export_file: str, model_name: str, model_path: str, manifest: str, archive_format: str = "default"
    ) -> None:
        """Pack the tree `model_path` and the manifest's text into the directory `export_file`."""
        output = ModelExportUtils.get_archive_export_path(export_file, model_name, archive_format)
        write_archive(Path(output), Path(model_path), model_name, manifest, archive_format)

    @staticmethod
    def archive_dir(
        path: str, dst: zipfile.ZipFile | tarfile.TarFile | str, archive_format: str, model_name: str
    ) -> None:
        """Add a tree to an open zip (default, zip-store) or tar (tgz) file, or to a directory (no-archive)."""
        suffix(archive_format)
        if isinstance(dst, zipfile.ZipFile):
            add_to_zip(dst, Path(path))
        elif isinstance(dst, tarfile.TarFile):
            add_to_tar(dst, Path(path), model_name)
        else:
            add_to_folder(Path(dst), Path(path))

    @staticmethod
    def directory_filter(directory: str, unwanted_dirs: Collection[str]) -> bool:
        """True if a folder of this name is packed."""
        return directory not in unwanted_dirs and is_packed_folder(directory)

    @staticmethod
    def file_filter(current_file: str, files_to_exclude: Collection[str]) -> bool:
        """False for names that no model needs, and for those in `files_to_exclude`. Not applied when packing."""
        unwanted = current_file in files_to_exclude or current_file in _UNWANTED_FILES
        return not unwanted and not current_file.endswith(_UNWANTED_SUFFIXES)

    @staticmethod
    def check_model_name_regex_or_exit(model_name: str) -> None:
        """Raises ModelArchiverError for names with characters that a url or a file name could not hold."""
        if not re.fullmatch(_MODEL_NAME, model_name):
            raise ModelArchiverError(
                "Model name contains special characters.\n"
                f"The allowed regular expression filter for model name is: {_MODEL_NAME}"
            )

    @staticmethod
    def validate_inputs(model_name: str, export_path: str) -> None:
        """Check the name and make the export directory. Raises ModelArchiverError."""
        ModelExportUtils.check_model_name_regex_or_exit(model_name)
        directory = Path(export_path)
        if not directory.exists():
            _logger.warning("Export directory (%s) does not exist. Creating...", export_path)
            directory.mkdir(parents=True)
        if not directory.is_dir():
            raise ModelArchiverError(
                f"Given export-path {export_path} is not a directory. Point to a valid export-path directory."
            )


__all__ = [
    "MANIFEST_FILE_NAME",
    "MAR_INF",
    "MODEL_ARCHIVE_VERSION",
    "MODEL_SERVER_VERSION",
    "ModelExportUtils",
    "archiving_options",
    "model_handlers",
]
