"""What is accepted but not done yet is said, once, with its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelserver.settings import unserved
from modelserver.settings.command_line import CommandLine
from modelserver.settings.loading import load
from modelserver.settings.model_options import ModelOptions, Requested, resolve
from modelserver.settings.snapshot import parse_snapshot
from modelserver.settings.table import Settings
from modelserver.settings.unserved import unserved_options, unserved_settings


def options(yaml: dict[str, object]) -> ModelOptions:
    resolved, _ = resolve(
        "m", "1.0", Requested(), yaml, Settings(), manifest_runtime="python", gpus=0, cpus=1, at_startup=False
    )
    return resolved


def test_defaults_need_no_warning() -> None:
    assert unserved_settings(Settings()) == []
    assert unserved_options("m", "1.0", options({})) == []


def test_packages_of_a_model_are_served() -> None:
    assert unserved_settings(Settings(install_py_dep_per_model=True)) == []
    assert unserved_options("m", "1.0", options({"useVenv": True})) == []


def test_saved_configurations_are_served() -> None:
    """In files; other stores are not there yet."""
    snapshot = parse_snapshot('{"modelCount": 1, "models": {}}')
    assert unserved_settings(Settings(model_snapshot=snapshot, snapshot_keep=20)) == []
    (notice,) = unserved_settings(Settings(snapshot_store="dynamodb"))
    assert notice.message == "snapshot_store has no effect in this version (default)"


def test_the_warning_names_the_place(tmp_path: Path) -> None:
    (tmp_path / "config.properties").write_text("cors_allowed_origin=*\nsystem_metrics_cmd=x\nlog_format=json\n")
    settings = load(CommandLine(), {}, tmp_path)
    assert [notice.message for notice in unserved_settings(settings)] == [
        "system_metrics_cmd has no effect in this version (config.properties:2)",
        "log_format has no effect in this version (config.properties:3)",
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [("continuousBatching", True), ("sequenceBatching", True), ("asyncCommunication", True)],
)
def test_options_of_a_model(key: str, value: object) -> None:
    (notice,) = unserved_options("m", "1.0", options({key: value}))
    assert notice.level == "WARN"
    assert notice.message == f"Model m 1.0: {key} has no effect in this version"


def test_every_name_is_one_of_the_table() -> None:
    assert all(hasattr(Settings(), key) for key in (*unserved.KEYS, *unserved.FORMATS))
    assert all(hasattr(options({}), field) for field in unserved.OPTIONS)
