"""The entry of `torch-workflow-archiver`: arguments, manifest, archive."""

from __future__ import annotations

import argparse
import logging
import sys

from workflow_archiver.arg_parser import ArgParser
from workflow_archiver.workflow_archiver_error import WorkflowArchiverError
from workflow_archiver.workflow_packaging_utils import WorkflowExportUtils
from workflow_archiver.workflow_spec import functions_in


def package_workflow(args: argparse.Namespace, manifest: str) -> None:
    """Pack the files under the given manifest text. Logs what is wrong with the arguments and exits with 1."""
    try:
        WorkflowExportUtils.validate_inputs(args.workflow_name, args.export_path)
        export_path = WorkflowExportUtils.check_war_already_exists(args.workflow_name, args.export_path, args.force)
        files = [args.spec_file, *([args.handler] if args.handler else []), *_extra_files(args.extra_files)]
        if not args.handler:
            _check_functions(args.spec_file)
        tree = WorkflowExportUtils.copy_artifacts(args.workflow_name, files)
        try:
            WorkflowExportUtils.archive(export_path, args.workflow_name, tree, manifest)
        finally:
            WorkflowExportUtils.clean_temp_files([tree])
    except WorkflowArchiverError as error:
        logging.error(error)
        sys.exit(1)


def generate_workflow_archive() -> None:
    """Make the archive that the command line describes."""
    logging.basicConfig(format="%(levelname)s - %(message)s")
    args = ArgParser.workflow_archiver_args_parser().parse_args()
    package_workflow(args, manifest=WorkflowExportUtils.generate_manifest_json(args))


def _extra_files(entries: str | None) -> list[str]:
    return [entry.strip() for entry in (entries or "").split(",") if entry.strip()]


def _check_functions(spec_file: str) -> None:
    """Raises WorkflowArchiverError if the graph cannot do without a handler."""
    if functions := functions_in(spec_file):
        names = ", ".join(functions)
        raise WorkflowArchiverError(
            f"Nodes of the dag that are no models need a handler: {names}.\n"
            "Please give the Python file with these functions as --handler."
        )


if __name__ == "__main__":
    generate_workflow_archive()
