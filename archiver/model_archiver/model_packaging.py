"""The entry of `torch-model-archiver`: arguments, manifest, archive."""

from __future__ import annotations

import logging
import sys

from model_archiver.arg_parser import ArgParser
from model_archiver.model_archiver_config import ModelArchiverConfig
from model_archiver.model_archiver_error import ModelArchiverError
from model_archiver.model_packaging_utils import ModelExportUtils

_logger = logging.getLogger(__name__)


def package_model(config: ModelArchiverConfig, manifest: str) -> None:
    """Pack the artifacts under the given manifest text. Raises ModelArchiverError (also logged), OSError."""
    try:
        ModelExportUtils.validate_inputs(config.model_name, config.export_path)
        export_path = ModelExportUtils.check_mar_already_exists(
            config.model_name, config.export_path, config.force, config.archive_format
        )
        artifacts = {
            "model_file": config.model_file,
            "serialized_file": config.serialized_file,
            "handler": config.handler,
            "extra_files": config.extra_files,
            "requirements-file": config.requirements_file,
            "config_file": config.config_file,
        }
        tree = ModelExportUtils.copy_artifacts(config.model_name, config.runtime, **artifacts)
        try:
            ModelExportUtils.archive(export_path, config.model_name, tree, manifest, config.archive_format)
        finally:
            ModelExportUtils.clean_temp_files([tree])
    except ModelArchiverError as error:
        _logger.error(error)
        raise


def generate_model_archive(config: ModelArchiverConfig | None = None) -> None:
    """Make an archive; without `config`, the one that the command line describes, or run the command it names."""
    if config is None:
        if sys.argv[1:2] in (["inspect"], ["verify"]):
            from model_archiver.commands import run_command  # what packing does not need

            sys.exit(run_command(sys.argv[1:]))
        logging.basicConfig(format="%(levelname)s - %(message)s", level=logging.WARNING)
        config = ArgParser.export_model_args_parser()
    package_model(config, ModelExportUtils.generate_manifest_json(config))


if __name__ == "__main__":
    generate_model_archive()
