"""The command line of `torch-workflow-archiver`."""

from __future__ import annotations

import argparse
from pathlib import Path


class ArgParser:
    """Makes the parser."""

    @staticmethod
    def workflow_archiver_args_parser() -> argparse.ArgumentParser:
        """The parser of all flags."""
        parser = argparse.ArgumentParser(
            prog="torch-workflow-archiver", description="Packs a workflow into an archive for model serving."
        )
        add = parser.add_argument
        add("--workflow-name", required=True, help="name of the workflow, and of the archive without its suffix")
        add("--spec-file", required=True, help="YAML file with the models and the graph of the workflow")
        add("--handler", help="Python file with the functions of the graph; not needed if every node is a model")
        add("--export-path", default=str(Path.cwd()), help="output directory (default: working directory)")
        add("-f", "--force", action="store_true", help="overwrite an existing archive")
        add("--extra-files", help="comma-separated files to put beside the handler")
        return parser
