"""What is accepted but not done yet is said, once, with its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelserver.settings import unserved
from modelserver.settings.command_line import CommandLine
from modelserver.settings.loading import load
from modelserver.settings.model_options import ModelOptions, Requested, resolve
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


def test_the_warning_names_the_place(tmp_path: Path) -> None:
    (tmp_path / "config.properties").write_text("job_queue_size=5\ncors_allowed_origin=*\nlog_format=json\n")
    settings = load(CommandLine(), {}, tmp_path)
    assert [notice.message for notice in unserved_settings(settings)] == [
        "cors_allowed_origin has no effect in this version (config.properties:2)",
        "log_format has no effect in this version (config.properties:3)",
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [("useJobTicket", True), ("clientTimeoutInMills", 5), ("parallelType", "tp"), ("asyncCommunication", True)],
)
def test_options_of_a_model(key: str, value: object) -> None:
    (notice,) = unserved_options("m", "1.0", options({key: value}))
    assert notice.level == "WARN"
    assert notice.message == f"Model m 1.0: {key} has no effect in this version"


def test_every_name_is_one_of_the_table() -> None:
    assert all(hasattr(Settings(), key) for key in (*unserved._KEYS, *unserved._FORMATS))
    assert all(hasattr(options({}), field) for field in unserved._OPTIONS)
