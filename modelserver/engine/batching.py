"""Which kind of batching a model version has: its scheduler, and the shell round it."""

from __future__ import annotations

from modelserver.engine.batcher import DynamicBatcher
from modelserver.engine.concurrent import ConcurrentScheduler
from modelserver.engine.concurrent_version import ConcurrentVersion
from modelserver.engine.continuous import ContinuousScheduler
from modelserver.engine.continuous_sequence_version import ContinuousSequenceVersion
from modelserver.engine.continuous_sequences import ContinuousSequenceScheduler
from modelserver.engine.continuous_version import ContinuousVersion
from modelserver.engine.scheduler import Scheduler
from modelserver.engine.sequence_book import SequenceBook
from modelserver.engine.sequence_scheduler import SequenceScheduler
from modelserver.engine.sequence_version import SequenceVersion
from modelserver.engine.version import ModelVersion
from modelserver.settings.model_options import ModelOptions


def scheduler_of(options: ModelOptions) -> Scheduler:
    """What decides about the batches; asynchronous handlers get every request at once, unless there are
    sequences, whose requests follow one another.
    """
    if options.sequence_batching:
        return (ContinuousSequenceScheduler if _is_continuous(options) else SequenceScheduler)(
            book=book_of(options),
            batch_size=options.batch_size,
            max_delay=options.max_batch_delay / 1000,
            capacity=options.job_queue_size,
            max_bytes=options.job_queue_bytes,
            tickets=options.use_job_ticket,
        )
    kind: type[ConcurrentScheduler | DynamicBatcher] = DynamicBatcher
    if options.async_communication:
        kind = ConcurrentScheduler
    elif options.continuous_batching:
        kind = ContinuousScheduler
    return kind(
        batch_size=options.batch_size,
        max_delay=options.max_batch_delay / 1000,
        capacity=options.job_queue_size,
        max_bytes=options.job_queue_bytes,
        tickets=options.use_job_ticket,
    )


def book_of(options: ModelOptions) -> SequenceBook:
    """The sequences of a stateful version."""
    return SequenceBook(
        most=options.max_num_sequence,
        queue=options.max_sequence_job_queue_size,
        max_idle=options.sequence_max_idle_msec / 1000,
        max_life=options.sequence_timeout_msec / 1000,
    )


def version_kind(options: ModelOptions) -> type[ModelVersion]:
    """What sends the batches and takes the replies."""
    if options.sequence_batching:
        return ContinuousSequenceVersion if _is_continuous(options) else SequenceVersion
    if options.async_communication:
        return ConcurrentVersion
    return ContinuousVersion if options.continuous_batching else ModelVersion


def _is_continuous(options: ModelOptions) -> bool:
    return options.continuous_batching and not options.async_communication
