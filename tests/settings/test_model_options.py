"""Options of a model version: what a YAML may state, what `models` may say, and who wins."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml as pyyaml
from hypothesis import given
from hypothesis import strategies as st

from modelserver.settings.command_line import CommandLine
from modelserver.settings.loading import load
from modelserver.settings.model_options import ModelOptions, Requested, resolve
from modelserver.settings.models_property import Entry, find_entry
from modelserver.settings.notices import Notice
from modelserver.settings.table import Settings
from modelserver.settings.torchrun import Torchrun
from modelserver.settings.yaml_values import shown


def resolved(
    yaml: Mapping[Any, object] | None = None,
    *,
    requested: Requested | None = None,
    entry: Mapping[str, object] | None = None,
    gpus: int = 0,
    at_startup: bool = False,
    **settings: Any,
) -> tuple[ModelOptions, list[Notice]]:
    models = {} if entry is None else {"noop": {"1.0": entry}}
    return resolve(
        "noop",
        "1.0",
        requested or Requested(),
        yaml,
        Settings(models=models, **settings),
        manifest_runtime="python",
        gpus=gpus,
        cpus=4,
        at_startup=at_startup,
    )


def options(*arguments: Any, **keywords: Any) -> ModelOptions:
    return resolved(*arguments, **keywords)[0]


def warnings(*arguments: Any, **keywords: Any) -> list[str]:
    """Without the place, which `test_warnings_name_the_file` looks at."""
    place = " (model configuration of model noop 1.0)"
    return [notice.message.removesuffix(place) for notice in resolved(*arguments, **keywords)[1]]


def test_defaults() -> None:
    assert resolved() == (
        ModelOptions(
            min_workers=0,
            max_workers=0,
            batch_size=1,
            max_batch_delay=100,
            response_timeout=120,
            startup_timeout=120,
            job_queue_size=100,
            job_queue_bytes=1 << 30,
            max_requests_per_worker=0,
            max_worker_memory=0,
            use_job_ticket=False,
            max_retry_timeout_in_sec=300,
            client_timeout_in_mills=0,
            device_type="cpu",
            device_ids=None,
            parallel_type="",
            parallel_level=0,
            torchrun=None,
            continuous_batching=False,
            sequence_batching=False,
            sequence_max_idle_msec=0,
            sequence_timeout_msec=0,
            max_num_sequence=0,
            max_sequence_job_queue_size=0,
            async_communication=False,
            use_venv=False,
            runtime="python",
        ),
        [],
    )
    assert resolved({}) == resolved(None)


@pytest.mark.parametrize(
    ("document", "field", "value", "warning"),
    [
        ("batchSize: 010", "batch_size", 8, None),
        ("batchSize: -3", "batch_size", 1, None),
        ("batchSize: abc", "batch_size", 1, "Invalid batchSize: abc, should be integer"),
        ("batchSize: true", "batch_size", 1, "Invalid batchSize: true, should be integer"),
        ("BatchSize: 7", "batch_size", 1, "Unknown key BatchSize: did you mean batchSize?"),
        ("max_workers: 7", "max_workers", 0, "Unknown key max_workers: did you mean maxWorkers?"),
        ("handler: {batchsize: 3}\nbatch: 3\nmodel_type: x\nmax_length: 9", "batch_size", 1, None),
        ('batchSize: "a\\nb"', "batch_size", 1, "Invalid batchSize: a\\nb, should be integer"),
        ("batchSize: 2\nbatchSize: 3", "batch_size", 3, None),
        ("maxBatchDelay: 0", "max_batch_delay", 0, None),
        ("maxBatchDelay: -1", "max_batch_delay", 100, "Invalid maxBatchDelay:-1"),
        ("responseTimeout: 0", "response_timeout", 120, "Invalid responseTimeout:0"),
        ("startupTimeout: -5", "startup_timeout", 120, "Invalid startupTimeout:-5"),
        (
            "startupTimeout: 99999999999",
            "startup_timeout",
            120,
            "Invalid startupTimeout: 99999999999, should be integer",
        ),
        ("jobQueueSize: 9", "job_queue_size", 9, None),
        ("jobQueueSize: -9", "job_queue_size", 100, None),
        ("jobQueueSize: x", "job_queue_size", 100, "Invalid jobQueueSize: x, should be positive int"),
        ("useJobTicket: 'true'", "use_job_ticket", False, "Invalid useJobTicket: true, should be true or false"),
        ("continuousBatching: yes", "continuous_batching", True, None),
        ("maxRetryTimeoutInSec: -1", "max_retry_timeout_in_sec", 0, None),
        (
            "maxRetryTimeoutInSec: null",
            "max_retry_timeout_in_sec",
            300,
            "Invalid maxRetryTimeoutInMin: null, should be integer",
        ),
        ("clientTimeoutInMills: -1", "client_timeout_in_mills", 0, None),
        (
            "clientTimeoutInMills: 1.5",
            "client_timeout_in_mills",
            0,
            "Invalid clientTimeoutInMills: 1.5, should be positive long",
        ),
        ("deviceType: neuron", "device_type", "gpu", "Invalid DeviceType:neuron"),
        ("deviceType: CPU", "device_type", "cpu", None),
        ("deviceType: 3", "device_type", "gpu", "Invalid deviceType: 3, should be cpu, or gpu"),
        ("deviceIds: [1, 0]", "device_ids", (1, 0), None),
        ("deviceIds: []", "device_ids", None, None),
        ("deviceIds: 1", "device_ids", None, "Invalid deviceIds: 1, should be list of integer"),
        ("deviceIds: [1, x]", "device_ids", None, "Invalid deviceIds: [1, x], should be list of integer"),
        ("deviceIds: [0, 2]", "device_ids", None, "Invalid deviceId:2, ignore deviceIds list"),
        ("deviceIds: [-1]", "device_ids", None, "Invalid deviceId:-1, ignore deviceIds list"),
        ("parallelType: PP", "parallel_type", "pp", None),
        ("parallelType: zz", "parallel_type", "", "Invalid ParallelType:zz"),
        ("parallelLevel: 2", "parallel_level", 0, None),
        ("parallelLevel: -2", "parallel_level", 0, "Invalid parallelLevel:-2"),
        ("torchrun: 3", "torchrun", None, "Invalid torchrun: 3, should be Torchrun parameters"),
        ("useVenv: true", "use_venv", True, None),
        ("asyncCommunication: true", "async_communication", True, None),
        ("1: 2\nhandler: {profile: true}", "batch_size", 1, None),
    ],
)
def test_values_of_the_yaml(document: str, field: str, value: object, warning: str | None) -> None:
    stated = pyyaml.safe_load(document)
    assert getattr(options(stated, gpus=2), field) == value
    assert warnings(stated, gpus=2) == ([] if warning is None else [warning])


def test_gpu_without_gpus_is_cpu() -> None:
    stated = {"deviceType": "gpu", "deviceIds": [0]}
    assert options(stated).device_type == "cpu"
    assert options(stated).device_ids is None
    assert warnings(stated) == ["Invalid deviceId:0, ignore deviceIds list"]


def test_sequences() -> None:
    stated = {"sequenceBatching": True, "sequenceMaxIdleMSec": 10, "maxNumSequence": 4}
    shown = options(stated)
    assert shown.sequence_batching
    assert (shown.sequence_max_idle_msec, shown.sequence_timeout_msec) == (10, 0)
    assert (shown.max_num_sequence, shown.max_sequence_job_queue_size) == (4, 1)
    assert warnings(stated) == []


def test_sequences_without_idle_limit_are_served_and_warned_about() -> None:
    stated = {"sequenceBatching": True, "maxSequenceJobQueueSize": 3}
    assert options(stated).max_sequence_job_queue_size == 3
    assert options(stated).max_num_sequence == 1
    assert len(warnings(stated)) == 1
    assert options({"maxNumSequence": 3}).max_num_sequence == 0


def test_torchrun_sets_the_level_and_the_later_one_wins() -> None:
    launched = {"parallelType": "tp", "torchrun": {"nproc-per-node": 4, "OMP_NUMBER_THREADS": 2}}
    assert options(launched).parallel_level == 4
    assert options(launched).torchrun == Torchrun(nproc_per_node=4, omp_number_threads=2)
    assert options(launched | {"parallelLevel": 2}).parallel_level == 2
    assert options({"parallelLevel": 2} | launched).parallel_level == 4


def test_torchrun_needs_a_type_and_ranks_need_a_torchrun() -> None:
    unused = options({"torchrun": {"nproc-per-node": 4}})
    assert (unused.parallel_level, unused.torchrun) == (0, None)
    assert options({"parallelType": "pptp", "parallelLevel": 2}).torchrun == Torchrun(nproc_per_node=2)
    custom = options({"parallelType": "custom", "parallelLevel": 2})
    assert (custom.parallel_level, custom.torchrun) == (2, None)


def test_torchrun_keeps_what_is_stated_and_warns_of_the_rest() -> None:
    given_map = {
        "nnodes": 0,
        "nproc-per-node": True,
        "OMP_NUMBER_THREADS": "2",
        "rdzv-backend": "static",
        "rdzv-conf": "a=1",
        "rdzv-endpoint": 7,
        "monitor-interval": 3,
        "node-rank": 0,
        "max-restarts": 3,
        "nproc_per_nodes": 2,
    }
    stated = {"parallelType": "pp", "torchrun": given_map}
    assert options(stated).torchrun == Torchrun(rdzv_backend="static", rdzv_conf="a=1", monitor_interval=3, node_rank=0)
    assert warnings(stated) == [
        "Invalid torchrun.nnodes:0, reset to 1",
        "Invalid torchrun.nproc-per-node:true, reset to 1",
        "Invalid OMP_NUMBER_THREADS:2, reset to 1",
        "Invalid torchrun.rdzv-endpoint:7, should be string",
        "unsupported parameter max-restarts",
        "unsupported parameter nproc_per_nodes: did you mean nproc-per-node?",
    ]


@pytest.mark.parametrize(
    ("stated", "initial", "workers", "warned"),
    [
        ({}, None, (3, 3), False),
        ({}, 0, (0, 0), False),
        ({}, -2, (0, 0), False),
        ({}, 2, (2, 2), False),
        ({"minWorkers": 1, "maxWorkers": 2}, 3, (1, 2), False),
        ({"minWorkers": 1, "maxWorkers": 2}, 0, (1, 2), False),
        ({"minWorkers": 0, "maxWorkers": 2}, 0, (1, 2), False),
        ({"minWorkers": 1}, 0, (0, 0), True),
        ({"maxWorkers": 2}, 2, (2, 2), True),
        ({"minWorkers": 3, "maxWorkers": 2}, 1, (1, 1), True),
    ],
)
def test_workers_of_a_registration(
    stated: dict[str, object], initial: int | None, workers: tuple[int, int], warned: bool
) -> None:
    keywords: dict[str, Any] = {
        "requested": Requested(initial_workers=initial),
        "entry": {"minWorkers": 9, "maxWorkers": 9},
        "default_workers_per_model": 3,
    }
    shown = options(stated, **keywords)
    assert (shown.min_workers, shown.max_workers) == workers
    assert [text.startswith("Invalid model config in mar, minWorkers:") for text in warnings(stated, **keywords)] == (
        [True] if warned else []
    )


@pytest.mark.parametrize(
    ("stated", "entry", "configured", "gpus", "workers"),
    [
        ({}, None, 0, 0, (4, 4)),
        ({}, None, 0, 2, (2, 2)),
        ({}, None, 3, 2, (3, 3)),
        ({}, {"minWorkers": 3, "maxWorkers": "2"}, 1, 0, (3, 2)),
        ({}, {"minWorkers": 3}, 1, 0, (3, 1)),
        ({"minWorkers": 1, "maxWorkers": 2}, {"minWorkers": 3, "maxWorkers": 3}, 1, 0, (1, 2)),
    ],
)
def test_workers_at_startup(
    stated: dict[str, object], entry: dict[str, object] | None, configured: int, gpus: int, workers: tuple[int, int]
) -> None:
    shown = options(stated, entry=entry, default_workers_per_model=configured, gpus=gpus, at_startup=True)
    assert (shown.min_workers, shown.max_workers) == workers


def test_debug() -> None:
    shown = options({"responseTimeout": 5}, debug=True, at_startup=True)
    assert (shown.min_workers, shown.max_workers) == (1, 1)
    assert shown.response_timeout == shown.startup_timeout == 2147483647


@pytest.mark.parametrize(
    ("entry", "requested", "runtime"),
    [({}, None, "python"), ({}, "LSP", "LSP"), ({"runtimeType": "python3"}, "LSP", "python3")],
)
def test_runtime(entry: dict[str, object], requested: str | None, runtime: str) -> None:
    shown = options({"useVenv": True}, entry=entry, requested=Requested(runtime=requested))
    assert shown.runtime == runtime
    assert shown.use_venv is (runtime == "python")


@pytest.mark.parametrize(
    ("value", "number"), [(8, 8), ("8", 8), (77.9, 77), (0, None), (-3, None), ("-3", None), (0.5, None)]
)
def test_numbers_of_the_models_property(value: object, number: int | None) -> None:
    entry, notices = find_entry({"m": {"1.0": {"batchSize": value, "marName": []}}}, "m", "1.0")
    assert entry.batch_size == number
    assert notices == []


@pytest.mark.parametrize("value", ["abc", "8.5", "", None, True, [], {}, float("inf"), float("nan"), 2**31, "9" * 20])
def test_bad_values_of_the_models_property(value: object) -> None:
    entry, notices = find_entry({"m": {"1.0": {"batchSize": value, "maxWorkers": 2}}}, "m", "1.0")
    assert (entry.batch_size, entry.max_workers) == (None, 2)
    message = f"Invalid value for model: m:1.0, parameter: batchSize: {shown(value)}, expected an integer"
    assert notices == [Notice("ERROR", "util.ConfigManager", message)]


def test_names_and_runtimes_of_the_models_property() -> None:
    stated = {"runtimeType": [], "BatchSize": 3, "marName": "m.mar", "parallelLevel": 1, "defaultVersion": True, "a": 1}
    entry, notices = find_entry({"m": {"1.0": stated}}, "m", "1.0")
    assert entry == Entry()
    assert [notice.message for notice in notices] == [
        "Invalid value for model: m:1.0, parameter: runtimeType: [], expected one of python, python3, LSP",
        "Unknown parameter of model: m:1.0, parameter: BatchSize: did you mean batchSize?",
    ]


def test_warnings_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.properties").write_text('\nmodels={"m": {"1.0": {"batchSize": "x"}}}')
    settings = load(CommandLine(), {}, tmp_path)
    _, notices = resolve(
        "m",
        "1.0",
        Requested(),
        {"maxWorkers": "x"},
        settings,
        manifest_runtime="python",
        gpus=0,
        cpus=1,
        at_startup=False,
        yaml_name="conf/model.yaml",
    )
    assert [notice.message for notice in notices] == [
        "Invalid maxWorkers: x, should be integer (conf/model.yaml of model m 1.0)",
        "Invalid value for model: m:1.0, parameter: batchSize: x, expected an integer (models, config.properties:2)",
    ]


def test_models_property_counts_for_its_name_and_version_only() -> None:
    models = {"noop": {"2.0": {"batchSize": 8}}, "other": {"1.0": {"batchSize": 8}}}
    assert find_entry(models, "noop", "1.0")[0].batch_size is None
    assert find_entry(models, "noop", "2.0")[0].batch_size == 8
    assert find_entry({"noop": {"1.0": {"maxBatchDelay": 0}}}, "noop", "1.0")[0].max_batch_delay == 0


numbers = st.none() | st.integers(1, 1000)


def first(*values: int | None) -> int:
    return next(value for value in values if value is not None)


@given(query=numbers, stated=numbers, entry=numbers, default=st.integers(1, 1000), at_startup=st.booleans())
def test_precedence(query: int | None, stated: int | None, entry: int | None, default: int, at_startup: bool) -> None:
    names = ("batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout")
    shown = options(
        {name: stated for name in names if stated is not None},
        requested=Requested(batch_size=query, max_batch_delay=query, response_timeout=query, startup_timeout=query),
        entry={name: entry for name in names if entry is not None},
        at_startup=at_startup,
        default_response_timeout=default,
        default_startup_timeout=default,
    )
    assert shown.batch_size == first(query, stated, entry, 1)
    assert shown.max_batch_delay == first(query, stated, entry, 100)
    assert shown.response_timeout == first(stated, entry, query, default)
    assert shown.startup_timeout == first(stated, entry, query, default)


def test_silent_numbers_of_a_registration() -> None:
    silent = Requested(batch_size=-1, max_batch_delay=-100)
    assert options({"batchSize": 4, "maxBatchDelay": 7}, requested=silent).batch_size == 4
    assert options({"batchSize": 4, "maxBatchDelay": 7}, requested=silent).max_batch_delay == 7
    assert options({"batchSize": 4}, requested=Requested(batch_size=0)).batch_size == 0
    assert options({"maxBatchDelay": 4}, requested=Requested(max_batch_delay=0)).max_batch_delay == 0


def test_limits_after_which_a_worker_is_replaced() -> None:
    everywhere = {"max_requests_per_worker": 1000, "max_worker_memory_mb": 512}
    inherited = options({}, **everywhere)
    assert (inherited.max_requests_per_worker, inherited.max_worker_memory) == (1000, 512 << 20)
    own = options({"maxRequestsPerWorker": 0, "maxWorkerMemoryInMB": 64}, **everywhere)
    assert (own.max_requests_per_worker, own.max_worker_memory) == (0, 64 << 20)
    assert options({"maxRequestsPerWorker": -5}).max_requests_per_worker == 0


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
)
NAMES = re.findall(
    r"\w+",
    "minWorkers maxWorkers batchSize maxBatchDelay responseTimeout startupTimeout jobQueueSize useJobTicket deviceIds "
    "maxRetryTimeoutInSec clientTimeoutInMills deviceType parallelType parallelLevel torchrun continuousBatching "
    "sequenceBatching sequenceMaxIdleMSec sequenceTimeoutMSec maxNumSequence maxSequenceJobQueueSize "
    "asyncCommunication useVenv runtimeType maxRequestsPerWorker maxWorkerMemoryInMB",
)


@given(
    stated=st.dictionaries(st.sampled_from(NAMES), json),
    entry=st.dictionaries(st.sampled_from(NAMES), json),
    gpus=st.integers(0, 2),
    at_startup=st.booleans(),
)
def test_any_values_give_usable_options(
    stated: dict[str, object], entry: dict[str, object], gpus: int, at_startup: bool
) -> None:
    shown = options(stated, entry=entry, gpus=gpus, at_startup=at_startup)
    assert shown.min_workers >= 0 and shown.max_workers >= 0
    assert shown.batch_size >= 1 and shown.max_batch_delay >= 0
    assert shown.response_timeout >= 1 and shown.startup_timeout >= 1
    assert shown.job_queue_size >= 1
    assert shown.device_type in (("gpu", "cpu") if gpus else ("cpu",))
    assert all(0 <= device < gpus for device in shown.device_ids or ())
    assert shown.parallel_type in ("", "pp", "tp", "pptp", "custom")
    assert (shown.torchrun is None) is (shown.parallel_level == 0 or shown.parallel_type == "custom")
