"""A model version as clients see it."""

from __future__ import annotations

import json
from typing import Any

from modelserver.engine.requests import VersionStatus, WorkerStatus


def describe_version(version: VersionStatus) -> dict[str, Any]:
    """One element of the answer; members that are None are not written."""
    options = version.options
    return {
        "modelName": version.model_name,
        "modelVersion": version.model_version,
        "modelUrl": version.model_url,
        "runtime": version.runtime,
        "minWorkers": version.min_workers,
        "maxWorkers": version.max_workers,
        "batchSize": options.batch_size,
        "maxBatchDelay": options.max_batch_delay,
        "responseTimeout": options.response_timeout,
        "startupTimeout": options.startup_timeout,
        "maxRetryTimeoutInSec": options.max_retry_timeout_in_sec,
        "clientTimeoutInMills": options.client_timeout_in_mills,
        "parallelType": options.parallel_type,
        "parallelLevel": options.parallel_level,
        "deviceType": options.device_type,
        "deviceIds": list(options.device_ids) if options.device_ids is not None else None,
        "continuousBatching": options.continuous_batching,
        "useJobTicket": options.use_job_ticket,
        "useVenv": options.use_venv,
        "stateful": options.sequence_batching,
        "sequenceMaxIdleMSec": options.sequence_max_idle_msec,
        "sequenceTimeoutMSec": options.sequence_timeout_msec,
        "maxNumSequence": options.max_num_sequence,
        "maxSequenceJobQueueSize": options.max_sequence_job_queue_size,
        "loadedAtStartup": version.loaded_at_startup,
        "workers": [_describe_worker(worker) for worker in version.workers],
        "jobQueueStatus": {
            "remainingCapacity": version.queue_remaining,
            "pendingRequests": version.queue_pending,
        },
    }


def _describe_worker(worker: WorkerStatus) -> dict[str, Any]:
    members: dict[str, Any] = {
        "id": worker.id,
        "startTime": worker.started.strftime("%Y-%m-%dT%H:%M:%S.") + f"{worker.started.microsecond // 1000:03}Z",
        "status": "READY" if worker.ready else "UNLOADING",
        "memoryUsage": worker.memory,
        "pid": worker.pid,
        "gpu": worker.gpu is not None,
        "gpuUsage": "N/A" if worker.gpu is None else worker.gpu_usage or "failed to obtained gpu usage",
    }
    if not worker.ready:
        members["cause"] = worker.certificate.as_json() if worker.certificate is not None else None
        members["nextRetryInSec"] = round(worker.next_retry, 1) if worker.next_retry is not None else None
        members["gaveUp"] = worker.gave_up or None
    return members


def customized_metadata(body: bytes) -> dict[str, Any] | None:
    """The handler's answer as `customizedMetadata`: None (left out) if empty, {} unless it is a JSON object."""
    if not body:
        return None
    try:
        metadata = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) else {}
