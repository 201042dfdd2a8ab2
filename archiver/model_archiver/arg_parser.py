"""The command line of `torch-model-archiver`."""

from __future__ import annotations

import argparse

from model_archiver.formats import SUFFIXES
from model_archiver.manifest_components.manifest import RuntimeType
from model_archiver.model_archiver_config import ModelArchiverConfig


class ArgParser:
    """Parses the arguments."""

    @staticmethod
    def export_model_args_parser() -> ModelArchiverConfig:
        """Parse `sys.argv`. Leaves with status 2 for wrong arguments, 0 for --help."""
        return ModelArchiverConfig.from_args(_make_parser().parse_args())


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="torch-model-archiver",
        description="Packs a model and its handler into an archive for model serving.",
        epilog="To look into archives: torch-model-archiver inspect ARCHIVE..., torch-model-archiver verify ARCHIVE...",
    )
    add = parser.add_argument
    add("--model-name", required=True, help="name of the model, and of the archive without its suffix")
    add("--serialized-file", help="weights: a state dict (.pt, .pth), a TorchScript, ONNX or other executable module")
    add("--model-file", help="Python file with the model's class; needed for weights that are a state dict")
    add("--handler", required=True, help="name of a built-in handler, or path of a handler: h.py, h, h:function")
    add("--extra-files", help="comma-separated files, folders (their content) and wildcards to put beside the handler")
    add(
        "--runtime",
        default=RuntimeType.PYTHON.value,
        choices=[runtime.value for runtime in RuntimeType],
        help="what the handler is written for (default: %(default)s)",
    )
    add("--export-path", default=ModelArchiverConfig.export_path, help="output directory (default: working directory)")
    add(
        "--archive-format",
        default="default",
        choices=list(SUFFIXES),
        help="default: NAME.mar, compressed; zip-store: NAME.mar, not compressed; tgz: NAME.tar.gz; no-archive: "
        "a directory NAME",
    )
    add("-f", "--force", action="store_true", help="overwrite an existing archive")
    add("-v", "--version", required=True, help="version of the model; empty means 1.0")
    add("-r", "--requirements-file", help="Python packages of this model, as pip reads them")
    add("-c", "--config-file", help="model configuration in YAML: workers, batches, timeouts, values for the handler")
    return parser
