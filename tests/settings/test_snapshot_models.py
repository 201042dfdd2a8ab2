"""The JSON of `model_snapshot`: what is read, what is refused, what is written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserver.settings.model_options import ModelOptions, Requested, resolve, restored
from modelserver.settings.snapshot import SavedVersion, format_snapshot, parse_snapshot
from modelserver.settings.table import Settings

ENTRY = {
    "defaultVersion": True,
    "marName": "m.mar",
    "minWorkers": 1,
    "maxWorkers": 5,
    "batchSize": 2,
    "maxBatchDelay": 200,
}
NUMBERS = st.integers(-(2**31), 2**31 - 1)
VERSIONS = st.builds(
    SavedVersion,
    mar_name=st.text(min_size=1),
    default=st.booleans(),
    min_workers=NUMBERS,
    max_workers=NUMBERS,
    batch_size=NUMBERS,
    max_batch_delay=NUMBERS,
    response_timeout=NUMBERS,
    startup_timeout=NUMBERS,
    runtime=st.text(),
    parallel_level=st.integers(0, 8),
    handler=st.text(),
)


def snapshot_of(entry: dict[str, Any], count: object = 1) -> str:
    return json.dumps({"name": "s", "modelCount": count, "models": {"m": {"1.0": entry}}})


@given(st.dictionaries(st.text(), st.dictionaries(st.text(), VERSIONS)))
def test_what_is_written_is_read(models: dict[str, dict[str, SavedVersion]]) -> None:
    snapshot = parse_snapshot(format_snapshot("name", 1, models))
    assert snapshot.models == models
    assert parse_snapshot(str(snapshot)) == snapshot
    assert snapshot.model_count == sum(map(len, models.values()))


def test_the_order_and_form_of_the_text() -> None:
    """Readers are used to two blanks and to this order; what says nothing is left out."""
    entry = SavedVersion(mar_name="m.mar", default=True, min_workers=1, max_workers=2, batch_size=4, max_batch_delay=50)
    text = format_snapshot("n.cfg", 1795159325783, {"m": {"1.0": entry}})
    assert text == (
        '{\n  "name": "n.cfg",\n  "modelCount": 1,\n  "created": 1795159325783,\n  "models": {\n    "m": {\n'
        '      "1.0": {\n        "defaultVersion": true,\n        "marName": "m.mar",\n        "minWorkers": 1,\n'
        '        "maxWorkers": 2,\n        "batchSize": 4,\n        "maxBatchDelay": 50,\n'
        '        "responseTimeout": 120,\n        "startupTimeout": 120,\n        "runtimeType": "python"\n'
        "      }\n    }\n  }\n}"
    )


def test_what_an_entry_may_leave_out() -> None:
    snapshot = parse_snapshot(snapshot_of({**ENTRY, "responseTimeout": None, "more": [1]}))
    assert snapshot.models["m"]["1.0"] == SavedVersion(
        mar_name="m.mar",
        default=True,
        min_workers=1,
        max_workers=5,
        batch_size=2,
        max_batch_delay=200,
        response_timeout=120,
        startup_timeout=120,
        runtime="python",
    )


@pytest.mark.parametrize(("value", "read"), [("3", 3), (3.9, 3), (-1, -1)])
def test_numbers_in_other_clothes(value: object, read: int) -> None:
    assert parse_snapshot(snapshot_of({**ENTRY, "minWorkers": value})).models["m"]["1.0"].min_workers == read


def test_without_a_count_nothing_is_to_be_restored() -> None:
    assert parse_snapshot('{"models": {}}').model_count == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "no valid JSON: Expecting property name enclosed in double quotes"),
        ("[" * 100_000, "no valid JSON"),
        ("[]", "must be a JSON object with a member models"),
        ("{}", "must be a JSON object with a member models"),
        ('{"models": null}', "must be a JSON object with a member models"),
        ('{"models": {"m": 1}}', 'models["m"] must be a JSON object'),
        ('{"models": {"m": {"1.0": []}}}', 'models["m"]["1.0"] must be a JSON object'),
        (snapshot_of(ENTRY, "many"), 'modelCount must be a number: "many"'),
        (snapshot_of({**ENTRY, "minWorkers": None}), 'models["m"]["1.0"] has no minWorkers'),
        (snapshot_of({**ENTRY, "marName": 7}), 'models["m"]["1.0"]: marName must be a text'),
        (snapshot_of({**ENTRY, "batchSize": True}), 'models["m"]["1.0"]: batchSize must be a number: true'),
        (snapshot_of({**ENTRY, "batchSize": float("nan")}), "batchSize must be a number: NaN"),
        (snapshot_of({**ENTRY, "startupTimeout": 2**31}), "startupTimeout must be a number: 2147483648"),
    ],
)
def test_what_is_malformed_is_named(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r"^model_snapshot: ") as refused:
        parse_snapshot(text)
    assert reason in str(refused.value)


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_no_text_does_worse_than_be_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^model_snapshot: "):
        parse_snapshot(text)


def options(yaml: dict[str, object], saved: SavedVersion) -> ModelOptions:
    resolved, _ = resolve(
        "m", "1.0", Requested(), yaml, Settings(), manifest_runtime="python3", gpus=0, cpus=1, at_startup=False
    )
    return restored(resolved, saved)


def test_saved_options_beat_all_others() -> None:
    yaml: dict[str, object] = {
        "minWorkers": 3,
        "maxWorkers": 3,
        "batchSize": 8,
        "responseTimeout": 9,
        "jobQueueSize": 7,
    }
    saved = parse_snapshot(snapshot_of(ENTRY)).models["m"]["1.0"]
    found = options(yaml, saved)
    assert (found.min_workers, found.max_workers, found.batch_size, found.max_batch_delay) == (1, 5, 2, 200)
    assert (found.response_timeout, found.startup_timeout, found.runtime) == (120, 120, "python")
    assert found.job_queue_size == 7, "what is not saved comes from the archive"


def test_a_saved_level_needs_a_model_that_is_parallel() -> None:
    saved = parse_snapshot(snapshot_of({**ENTRY, "parallelLevel": 4})).models["m"]["1.0"]
    assert options({}, saved).parallel_level == 0
    parallel = options({"parallelType": "pp", "parallelLevel": 2}, saved)
    assert parallel.parallel_level == 4
    assert parallel.torchrun is not None and parallel.torchrun.nproc_per_node == 4
