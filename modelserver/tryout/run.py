"""`modelserver run-handler`: loads a model and lets its handler answer files, all in this process and thread."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from modelserver.ending import leave
from modelserver.errors import ConfigurationError, InvalidModel, ServerError
from modelserver.settings.command_line import CommandLine
from modelserver.settings.loading import load
from modelserver.settings.model_options import ModelOptions
from modelserver.settings.table import Settings
from modelserver.tryout.awaited import AwaitedService, DebuggedAwaitedService
from modelserver.tryout.command_line import Options, parse
from modelserver.tryout.debugged import DebuggedContinuousService, DebuggedService, debug
from modelserver.tryout.inputs import BadInput, Trial, batches, kind_of, read_trials
from modelserver.tryout.report import Report
from modelserver.tryout.stage import as_worker, equip, frame_of, model_options, opened
from modelserver.wire.frames import Batch, Load
from modelserver.worker.continuous_service import ContinuousService
from modelserver.worker.failures import LoadFailed
from modelserver.worker.service import Service

_MISUSE = 2  # exit statuses
_INTERRUPTED = 130  # as of a program that SIGINT ends
_QUIT = "BdbQuit"  # how a failure begins that was the user's leave from the debugger


def main(arguments: Sequence[str]) -> NoReturn:
    """Run the command and exit: with 0 if every request was answered with less than 400, 1 if not, 2 for misuse."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was unpacked is removed then, too
    leave(_status(options))  # a thread of the handler that goes on must not hold it up


def _status(options: Options) -> int:
    try:
        trials = read_trials(options)
        if options.output is not None:
            options.output.mkdir(parents=True, exist_ok=True)
        settings = _settings(options)
    except (BadInput, ConfigurationError, OSError) as error:
        print(f"modelserver run-handler: {error}", file=sys.stderr)
        return _MISUSE
    try:
        return _run(options, settings, trials)
    except ServerError as error:
        print(f"modelserver run-handler: {options.archive}: {_told(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    except SystemExit as ended:
        text = f"the handler has ended the process (SystemExit: {ended.code}): in a server, that is the worker's death"
        print(f"modelserver run-handler: {text}", file=sys.stderr)
        return 1


def _told(error: ServerError) -> str:
    """Message, cause, and the end of what a program has said."""
    certificate = error.certificate
    detail = f": {certificate.detail}" if certificate else ""
    advice = ". Give --handler, and --model-name." if isinstance(error, InvalidModel) else ""
    return "\n".join([f"{error.message}{detail}{advice}", *(certificate.last_output if certificate else ())])


def _settings(options: Options) -> Settings:
    """What a server that is started here would have. Raises ConfigurationError."""
    return load(CommandLine(ts_config=options.ts_config, no_config_snapshots=True), os.environ, Path.cwd())


def _run(options: Options, settings: Settings, trials: list[Trial]) -> int:
    """Raises ServerError for an archive that cannot be opened."""
    output = options.output and options.output.absolute()
    with (
        tempfile.TemporaryDirectory(prefix="run-handler-", ignore_cleanup_errors=True) as temp,
        opened(options, settings, Path(temp)) as archive,
    ):
        model = model_options(archive, settings, options.batch_size or len(trials))
        equip(archive, model, settings, Path(temp))
        frame = frame_of(archive, model, options, settings)
        report = Report(Path(frame.model_dir), output)
        with as_worker(archive, settings):
            return _load_and_call(_kind(options, model), frame, report, options, trials)


def _kind(options: Options, model: ModelOptions) -> type[Service]:
    if model.async_communication:
        return DebuggedAwaitedService if options.pdb else AwaitedService
    if model.continuous_batching:
        return DebuggedContinuousService if options.pdb else ContinuousService
    return DebuggedService if options.pdb else Service


def _load_and_call(kind: type[Service], frame: Load, report: Report, options: Options, trials: list[Trial]) -> int:
    try:
        service = kind.load(frame, report)
    except LoadFailed as failed:
        if options.pdb and failed.__cause__ is not None:
            debug(failed.__cause__)
        report.unloaded(failed.code, failed.failure)
        return 1
    return _call(service, report, options, trials)


def _call(service: Service, report: Report, options: Options, trials: list[Trial]) -> int:
    kind = kind_of(options)
    for run in range(1, options.repeat + 1):
        for number, batch in enumerate(batches(trials, options.batch_size)):
            if not _answer(service, report, Batch(number, kind, []), batch, run):
                return 1
    return int(report.failed > 0)


def _answer(service: Service, report: Report, batch: Batch, trials: list[Trial], run: int) -> bool:
    """Give these requests to the handler until none of them goes on; False if the user has left the debugger."""
    while trials:
        report.begin(trials, run)
        batch.requests = [trial.request for trial in trials]
        replies = service.handle(batch)
        if replies.failure is not None and replies.failure.detail.startswith(_QUIT):
            return False
        report.end(replies)
        trials = [trials[index] for index in replies.going_on]
        batch.continued = len(trials)
    return True
