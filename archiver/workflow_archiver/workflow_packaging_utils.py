"""The steps of packing, under the names that scripts call."""

from __future__ import annotations

import argparse
import logging
import re
import shutil
import tempfile
import zipfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from model_archiver.formats import MANIFEST_FILE_NAME, add_to_zip, write_zip
from model_archiver.model_packaging_utils import ModelExportUtils
from model_archiver.staging import stage_file
from workflow_archiver.manifest_components.manifest import Manifest
from workflow_archiver.manifest_components.workflow import Workflow
from workflow_archiver.workflow_archiver_error import WorkflowArchiverError

WAR_INF: Final = "WAR-INF"
SUFFIX: Final = ".war"

_WORKFLOW_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_\-.]*$"


class WorkflowExportUtils:
    """Names and checks of the output, the tree of files, the archive."""

    @staticmethod
    def get_archive_export_path(export_file_path: str, workflow_name: str) -> str:
        """The file that is written."""
        return str(Path(export_file_path, workflow_name + SUFFIX))

    @staticmethod
    def check_war_already_exists(workflow_name: str, export_file_path: str | None, overwrite: bool) -> str:
        """The directory to export to. Raises WorkflowArchiverError if the output exists and may not be overwritten."""
        export_path = export_file_path or str(Path.cwd())
        output = WorkflowExportUtils.get_archive_export_path(export_path, workflow_name)
        if Path(output).exists():
            if not overwrite:
                raise WorkflowArchiverError(
                    f"{output} already exists.\n"
                    "Please specify --force/-f option to overwrite the workflow archive output file.\n"
                    "See -h/--help for more details."
                )
            logging.warning("Overwriting %s ...", output)
        return export_path

    @staticmethod
    def generate_workflow(workflow_args: argparse.Namespace) -> Workflow:
        """The `workflow` member of the manifest."""
        return Workflow(workflow_args.workflow_name, workflow_args.spec_file, workflow_args.handler)

    @staticmethod
    def generate_manifest_json(args: argparse.Namespace) -> str:
        """The text of the manifest."""
        return str(Manifest(WorkflowExportUtils.generate_workflow(args)))

    @staticmethod
    def clean_temp_files(temp_files: Iterable[str]) -> None:
        """Delete files and trees."""
        ModelExportUtils.clean_temp_files(temp_files)

    @staticmethod
    def make_dir(d: str) -> None:
        """Make a directory unless it exists."""
        ModelExportUtils.make_dir(d)

    @staticmethod
    def copy_artifacts(workflow_name: str, artifact_files: Iterable[str]) -> str:
        """A new private directory whose files are links to these; the caller deletes it. Raises OSError."""
        tree = Path(tempfile.mkdtemp(prefix=f"{workflow_name}-"))
        try:
            for file in artifact_files:
                stage_file(Path(file), tree)
        except BaseException:
            shutil.rmtree(tree)
            raise
        return str(tree)

    @staticmethod
    def archive(export_file: str, workflow_name: str, workflow_path: str, manifest: str) -> None:
        """Pack the tree `workflow_path` and the manifest's text into the directory `export_file`."""
        output = WorkflowExportUtils.get_archive_export_path(export_file, workflow_name)
        write_zip(Path(output), Path(workflow_path), manifest, folder=WAR_INF)

    @staticmethod
    def archive_dir(path: str, dst: zipfile.ZipFile) -> None:
        """Add a tree to an open zip file."""
        add_to_zip(dst, Path(path), WAR_INF)

    @staticmethod
    def directory_filter(directory: str, unwanted_dirs: Collection[str]) -> bool:
        """True if a folder of this name is packed."""
        return ModelExportUtils.directory_filter(directory, unwanted_dirs)

    @staticmethod
    def file_filter(current_file: str, files_to_exclude: Collection[str]) -> bool:
        """False for names that no workflow needs, and for those in `files_to_exclude`. Not applied when packing."""
        return ModelExportUtils.file_filter(current_file, files_to_exclude) and not current_file.endswith(SUFFIX)

    @staticmethod
    def check_workflow_name_regex_or_exit(workflow_name: str) -> None:
        """Raises WorkflowArchiverError for names with characters that a url or a file name could not hold."""
        if not re.fullmatch(_WORKFLOW_NAME, workflow_name):
            raise WorkflowArchiverError(
                "Workflow name contains special characters.\n"
                f"The allowed regular expression filter for workflow name is: {_WORKFLOW_NAME}"
            )

    @staticmethod
    def validate_inputs(workflow_name: str, export_path: str) -> None:
        """Check the name and the export directory, which is never made here. Raises WorkflowArchiverError."""
        WorkflowExportUtils.check_workflow_name_regex_or_exit(workflow_name)
        if not Path(export_path).is_dir():
            raise WorkflowArchiverError(
                f"Given export-path {export_path} is not a directory. Point to a valid export-path directory."
            )


__all__ = ["MANIFEST_FILE_NAME", "WAR_INF", "WorkflowExportUtils"]
