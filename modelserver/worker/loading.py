"""Loading a model: every way it can fail, told apart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelserver.wire.frames import Load
from modelserver.worker import failures
from modelserver.worker.batch_context import BatchContext
from modelserver.worker.failures import LoadFailed, failure_of, text_of
from modelserver.worker.model_files import BadArchive, read_manifest, read_metrics, read_model_config
from modelserver.worker.updates import Updates
from ts.channel import Channel
from ts.entry_point import (
    Class,
    Function,
    Handle,
    HandlerBroken,
    HandlerMissing,
    Run,
    drop,
    find_envelope,
    find_handler,
)
from ts.metrics.metric_cache_abstract import MetricCacheAbstract
from ts.version import __version__

logger = logging.getLogger(__name__)


def make_context(frame: Load, channel: Channel, metrics: MetricCacheAbstract) -> BatchContext:
    """The context of the worker, with the files of the model directory read. Raises `LoadFailed`."""
    model_dir = Path(frame.model_dir)
    with _classified(frame.model_name, failures.BAD_ARCHIVE):
        manifest = read_manifest(model_dir)
        config = read_model_config(model_dir, manifest)
    return BatchContext(
        channel,
        frame.max_response_size,
        frame.model_name,
        frame.model_dir,
        manifest,
        frame.batch_size,
        frame.gpu,
        __version__,
        frame.limit_max_image_pixels,
        metrics,
        config,
    )


def make_metrics(frame: Load, updates: Updates) -> MetricCacheAbstract:
    """The metrics that the handler records into."""
    metrics = read_metrics(frame.metrics_config, updates.add)
    metrics.model_name = frame.model_name
    return metrics


def in_envelope(envelope: type[Any], handle: Handle) -> Handle:
    """A handler that an envelope talks to."""
    enveloped: Handle = envelope(handle).handle
    return enveloped


def load_handler(
    frame: Load,
    context: BatchContext,
    wrap: Callable[[type[Any], Handle], Handle] = in_envelope,
    run: Run = drop,
) -> tuple[Handle, Handle]:
    """Import the handler and let it load the model. Returns what answers batches, in its envelope (if there is one) and
    without. Raises `LoadFailed`. `wrap` puts it in there; `run` runs what it returns if that is a coroutine.
    """
    entry, envelope = import_handler(frame)
    with _classified(frame.model_name, failures.INITIALIZE):
        handle = entry.load(context, run)
        return handle if envelope is None else wrap(envelope, handle), handle


def import_handler(frame: Load) -> tuple[Function | Class, type[Any] | None]:
    """What the handler and the envelope of the server's configuration, if any, are. Raises `LoadFailed`."""
    with _classified(frame.model_name, failures.HANDLER_IMPORT):
        entry = find_handler(frame.handler, Path(frame.model_dir))
        return entry, find_envelope(frame.envelope) if frame.envelope else None


@contextmanager
def _classified(model: str, cause: str) -> Iterator[None]:
    """Turns every exception into `LoadFailed`: with the cause it tells itself, else with `cause`."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        raise
    except HandlerMissing as error:
        raise _died(failures.HANDLER_MISSING, error) from error
    except HandlerBroken as error:
        raise _died(failures.HANDLER_CONTRACT, error.__cause__ or error) from error
    except BadArchive as error:
        raise _died(failures.BAD_ARCHIVE, error) from error
    except BaseException as error:
        raise _load_failed(model, cause, error) from error


def _load_failed(model: str, cause: str, error: BaseException) -> LoadFailed:
    text = text_of(error)
    if isinstance(error, MemoryError):
        logger.error("Load model %s cpu OOM, exception %s", model, text)
        return LoadFailed(507, "System out of memory", failure_of(failures.OUT_OF_MEMORY, error))
    if isinstance(error, RuntimeError) and "CUDA" in text:
        logger.error("Load model %s cuda OOM, exception %s", model, text)
        return LoadFailed(507, "System out of memory", failure_of(failures.CUDA_OUT_OF_MEMORY, error))
    if isinstance(error, RuntimeError):
        logger.error("Failed to load model %s, exception %s", model, text)
        return LoadFailed(500, "Unknown exception", failure_of(cause, error))
    return _died(cause, error)


def _died(cause: str, error: BaseException) -> LoadFailed:
    failure = failure_of(cause, error)
    return LoadFailed(500, failure.detail, failure)
