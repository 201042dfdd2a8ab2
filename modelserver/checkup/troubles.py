"""What keeps an archive from being served, as findings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from modelserver.archives.archive import Archive
from modelserver.checkup.finding import Finding, error, warning
from modelserver.checkup.requirements import unsatisfied
from modelserver.engine.assembly import check_workers
from modelserver.errors import BadRequest, Cause, ServerError
from modelserver.settings.model_options import ModelOptions
from modelserver.wire.frames import Failure

_REMEDIES: Final = {
    Cause.BAD_ARCHIVE: "Pack it again.",
    Cause.HANDLER_MISSING: "Pack it again with the handler, or name one by default_service_handler.",
    Cause.HANDLER_IMPORT: "Install what it imports where the server runs, or mend the handler.",
    Cause.HANDLER_CONTRACT: "Mend the handler.",
    Cause.EXIT: "Mend the handler: its import ends the process.",
    Cause.OUT_OF_MEMORY: "Mend the handler: its import takes more memory than there is.",
    Cause.CUDA_OUT_OF_MEMORY: "Mend the handler: its import uses the GPU.",
    Cause.DEPENDENCY: "Mend the requirements file, or give the server access to the packages.",
    Cause.STORAGE: "Make room, or give the server's user the right to.",
}


def of_error(where: str, failure: ServerError) -> Finding:
    """What a registration would be answered."""
    text = f"{failure.type}: {failure.message}"
    if (certificate := failure.certificate) is None:
        return error(where, text, "Correct the name, or pack it again.")
    return error(where, f"{text}: {certificate.detail}", _REMEDIES.get(certificate.cause, ""))


def of_failure(where: str, failure: Failure, directory: str) -> Finding:
    """What the worker would die of, and the last place in the handler's code on the way there."""
    places = [line.strip() for line in failure.traceback.splitlines() if line.startswith("  File ")]
    place = [line.replace(directory, "") for line in places if directory in line][-1:]
    text = f"{failure.cause}: {failure.detail}" + "".join(f" ({line})" for line in place)
    return error(where, text, _REMEDIES.get(Cause(failure.cause), ""))


def missing_files(where: str, archive: Archive) -> Iterator[Finding]:
    """What the manifest names and the archive does not hold."""
    manifest = archive.manifest
    if manifest is None:
        return
    named = {
        "serializedFile": manifest.serialized_file,
        "modelFile": manifest.model_file,
        "requirementsFile": manifest.requirements_file,
    }
    for member, name in named.items():
        if name and not (archive.directory / name).exists():
            yield error(where, f"the manifest names {name} ({member}), and there is no such file", "Pack it again.")


def missing_packages(where: str, archive: Archive) -> Iterator[Finding]:
    """What the archive asks for, where nothing is installed for it."""
    name = archive.manifest.requirements_file if archive.manifest else None
    if not name:
        return
    try:
        lines = (archive.directory / name).read_text(errors="replace").splitlines()
    except OSError:
        return  # told already
    missing = list(unsatisfied(lines))
    if missing:
        text = f"{name}: {'; '.join(missing)}, and install_py_dep_per_model is off"
        yield warning(where, text, "Install it where the server runs, or set install_py_dep_per_model=true.")


def too_few_gpus(where: str, options: ModelOptions) -> Finding:
    text = f"parallelLevel is {options.parallel_level}, and there are not so many GPUs for a worker"
    return error(where, text, "Lower it, or free GPUs for this server.")


def too_many_workers(where: str, archive: Archive, options: ModelOptions) -> Iterator[Finding]:
    """A number of workers that a registration would be refused for."""
    try:
        check_workers(options, options.min_workers, archive.model_name)
    except BadRequest as refusal:
        yield error(where, refusal.message, "Lower its minWorkers, or default_workers_per_model.")
