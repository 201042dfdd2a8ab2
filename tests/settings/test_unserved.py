"""What is accepted but not done yet is said, once, with its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserver.settings import unserved
from modelserver.settings.command_line import CommandLine
from modelserver.settings.loading import load
from modelserver.settings.model_options import ModelOptions, Requested, resolve
from modelserver.settings.snapshot import parse_snapshot
from modelserver.settings.table import Settings, rows
from modelserver.settings.unserved import unserved_options, unserved_settings

PROGRAM = Path(unserved.__file__).parents[1]
LISTS = {f"settings/{name}.py" for name in ("unserved", "banner", "command_line")}
WITHOUT_A_READER = (
    *("cors_allowed_origin", "cors_allowed_methods", "cors_allowed_headers"),  # read by the ends of their names
    *("use_env_allowed_urls", "enable_envvars_config"),  # read while the file is
    "keystore_type",  # the file itself tells
    "async_logging",  # always on
    "cpp_log_config",  # accepted without a word: there are no native workers to log
)


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
    (tmp_path / "config.properties").write_text("cors_allowed_origin=*\nplugins=x:y\nsnapshot_store=dynamodb\n")
    settings = load(CommandLine(), {}, tmp_path)
    assert [notice.message for notice in unserved_settings(settings)] == [
        "plugins has no effect in this version (config.properties:2)",
        "snapshot_store has no effect in this version (config.properties:3)",
    ]


def test_continuous_batching_is_not_for_asynchronous_handlers() -> None:
    assert unserved_options("m", "1.0", options({"continuousBatching": True})) == []
    (notice,) = unserved_options("m", "1.0", options({"continuousBatching": True, "asyncCommunication": True}))
    assert notice.level == "WARN"
    assert notice.message.startswith("Model m 1.0: continuousBatching has no effect beside asyncCommunication")


@pytest.mark.parametrize(
    "line", ["plugins_disabled=*", "snapshot_dynamodb_table=mine", "enable_workflow_api=true", "workflow_store=flows"]
)
def test_keys_of_rooms_that_are_not_there(tmp_path: Path, line: str) -> None:
    """Whoever states one is told; the defaults are nobody's wish."""
    (tmp_path / "config.properties").write_text(f"{line}\n")
    (notice,) = unserved_settings(load(CommandLine(), {}, tmp_path))
    assert notice.message == f"{line.partition('=')[0]} has no effect in this version (config.properties:1)"


def test_what_nobody_asks_for_is_not_told(tmp_path: Path) -> None:
    """Workflows that are switched off, and the store that follows from the model store."""
    (tmp_path / "config.properties").write_text("enable_workflow_api=false\nmodel_store=store\n")
    assert unserved_settings(load(CommandLine(), {}, tmp_path)) == []


def test_every_key_is_read_by_somebody_or_said_to_be_unserved() -> None:
    """A new row of the table has an effect, or whoever sets it is told; one that has an effect is not told."""
    read = set(names_in_code())
    said = {*unserved.KEYS, *unserved.FORMATS, *unserved.STATED}
    silent = {key for key, row in rows().items() if not row.jvm} - read - said - set(WITHOUT_A_READER)
    assert not silent, "nobody reads these, and nobody is told"
    assert not read & said, "these are read: take them out of unserved.py"


def names_in_code() -> Iterator[str]:
    """Attributes that the program looks up, but for the modules that list all settings or state the table."""
    for path in PROGRAM.rglob("*.py"):
        if "checkup" not in path.parts and path.relative_to(PROGRAM).as_posix() not in LISTS:
            nodes = list(ast.walk(ast.parse(path.read_text())))
            yield from (node.attr for node in nodes if isinstance(node, ast.Attribute) and not of_arguments(node))


def of_arguments(node: ast.Attribute) -> bool:
    """A flag of the command line, which may bear the name of a key."""
    return isinstance(node.value, ast.Name) and node.value.id == "arguments"


def test_every_name_is_one_of_the_table() -> None:
    assert all(hasattr(Settings(), key) for key in (*unserved.KEYS, *unserved.FORMATS, *unserved.STATED))
