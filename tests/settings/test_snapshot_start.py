"""What a start takes from a saved configuration, what it forgets, and what it says about that."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelserver.errors import ConfigurationError
from modelserver.settings.command_line import parse
from modelserver.settings.loading import load
from modelserver.settings.snapshot import SavedVersion
from modelserver.settings.table import Settings

REAL = Path(__file__).parent / "snapshots"  # written by TorchServe
OLD = "20261120123605223-shutdown.cfg"
NEW = "20261120123622707-snapshot.cfg"
HEAD = "#Saving snapshot\n#Fri Nov 20 07:22:05 UTC 2026\n#Written by modelserver 0.12.0\n"


def place(cwd: Path, name: str, text: str | None = None) -> str:
    """A saved configuration, by default one that TorchServe has written; returns its path."""
    path = cwd / "logs" / "config" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((REAL / name).read_bytes() if text is None else text.encode())
    return str(path)


def start(cwd: Path, *flags: str, **environ: str) -> Settings:
    return load(parse(flags), environ, cwd)


def warnings(settings: Settings, about: str) -> list[str]:
    texts = [notice.message for notice in settings.notices if notice.level == "WARN"]
    return [text for text in texts if about in text]


def test_files_of_torchserve(tmp_path: Path) -> None:
    """Its newest file is read: settings, models, and none of the facts about the program that wrote it."""
    place(tmp_path, OLD)
    newest = place(tmp_path, NEW)
    settings = start(tmp_path)
    assert settings.config_file == newest
    assert settings.inference_address.port == 28080
    assert settings.model_store == settings.workflow_store == Path("/models")
    assert settings.load_models == "noop=noop.mar"
    assert settings.properties["NUM_WORKERS"] == "a b\tc #!:=\\ x"
    assert settings.python == Settings().python
    assert settings.number_of_gpu is None
    assert settings.forgotten_gpu_count == f"{newest}:{_line(newest, 'number_of_gpu')}"
    assert settings.model_snapshot is not None
    assert (settings.model_snapshot.name, settings.model_snapshot.model_count) == (NEW, 3)
    assert settings.model_snapshot.models["configured"]["1.0"] == SavedVersion(
        mar_name="configured.mar",
        default=True,
        min_workers=1,
        max_workers=2,
        batch_size=4,
        max_batch_delay=200,
        response_timeout=33,
    )
    noop = settings.model_snapshot.models["noop"]
    assert {version: entry.default for version, entry in noop.items()} == {"1.0": False, "2.0": True}


def _line(path: str, key: str) -> int:
    lines = Path(path).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.startswith(key))


def test_text_of_any_language_survives(tmp_path: Path) -> None:
    place(tmp_path, OLD)
    assert start(tmp_path).properties["key with blanks"] == "ä€"


def test_the_newest_file_beats_the_usual_one(tmp_path: Path) -> None:
    newest = place(tmp_path, OLD)
    (tmp_path / "config.properties").write_text("default_service_handler=usual")
    (message,) = warnings(start(tmp_path), "Starting from")
    assert newest in message and str(tmp_path / "config.properties") in message
    (tmp_path / "config.properties").unlink()
    assert warnings(start(tmp_path), "Starting from") == []
    told = [notice.message for notice in start(tmp_path).notices if notice.level == "INFO"]
    assert f"Starting from the saved configuration {newest}" in told


@pytest.mark.parametrize("flags", [["--ncs"], ["--ts-config", "config.properties"]])
def test_who_does_not_want_it_does_not_get_it(tmp_path: Path, flags: list[str]) -> None:
    place(tmp_path, OLD)
    place(tmp_path, "notes.txt", "a=b")
    (tmp_path / "config.properties").write_text("default_service_handler=usual")
    settings = start(tmp_path, *flags)
    assert settings.default_service_handler == "usual"
    assert warnings(settings, "saved configuration") == []
    variable = start(tmp_path, TS_CONFIG_FILE="config.properties")
    assert variable.default_service_handler == "usual"


def test_another_directory_of_logs(tmp_path: Path) -> None:
    place(tmp_path / "far", OLD)
    assert start(tmp_path).config_file is None
    assert start(tmp_path, LOG_LOCATION="far/logs").model_snapshot is not None


def test_strays_are_named(tmp_path: Path) -> None:
    place(tmp_path, "notes.txt", "default_service_handler=notes")
    place(tmp_path, "20261120123605224-shutdown.cfg", "")
    settings = start(tmp_path)
    assert settings.config_file is None and settings.default_service_handler == ""
    assert warnings(settings, "skipped: 20261120123605224-shutdown.cfg, notes.txt")


def test_the_workflow_store_follows_the_model_store(tmp_path: Path) -> None:
    place(tmp_path, OLD)
    settings = start(tmp_path, "--model-store", "other")
    assert settings.model_store == settings.workflow_store == tmp_path / "other"
    place(tmp_path, NEW, f"{HEAD}model_store=/models\nworkflow_store=/flows\n")
    assert start(tmp_path, "--model-store", "other").workflow_store == Path("/flows")


def test_gpus_that_a_user_has_counted(tmp_path: Path) -> None:
    """0 is a wish where a user wrote it, or where this program, which writes wishes alone, has saved it."""
    place(tmp_path, NEW, f"{HEAD}number_of_gpu=0\n")
    assert start(tmp_path).number_of_gpu == 0
    (tmp_path / "config.properties").write_text('number_of_gpu=0\nmodel_snapshot={"models": {}}\n')
    settings = start(tmp_path, "--ncs")
    assert (settings.number_of_gpu, settings.forgotten_gpu_count) == (0, "")
    place(tmp_path, NEW, f"{HEAD.replace('#Written', '#')}number_of_gpu=2\n")
    assert start(tmp_path).number_of_gpu == 2


@pytest.mark.parametrize(
    ("key", "flag"),
    [("disable_token_authorization", "--disable-token-auth"), ("enable_model_api", "--enable-model-api")],
)
def test_open_doors_are_named(tmp_path: Path, key: str, flag: str) -> None:
    """Where nobody who starts the server has opened them."""
    place(tmp_path, OLD)
    settings = start(tmp_path)
    assert getattr(settings, key) is True
    assert len(warnings(settings, f"{key}=true comes from a saved configuration")) == 1
    assert warnings(start(tmp_path, flag), f"{key}=true comes") == []
    (tmp_path / "own").write_text(f"{key}=true")
    assert warnings(start(tmp_path, "--ts-config", "own"), key) == []


def test_models_that_are_named_in_vain(tmp_path: Path) -> None:
    place(tmp_path, OLD)
    assert warnings(start(tmp_path), "load_models has no effect") == [], "nobody named any at this start"
    (message,) = warnings(start(tmp_path, "--models", "x.mar"), "load_models has no effect")
    assert message.endswith("(command line --models)")
    (tmp_path / "own").write_text('load_models=x.mar\nmodel_snapshot={"models": {}}')
    assert warnings(start(tmp_path, "--ts-config", "own"), "load_models has no effect")
    (tmp_path / "own").write_text("load_models=x.mar\nmodel_snapshot=\n")
    settings = start(tmp_path, "--ts-config", "own")
    assert settings.model_snapshot is None
    assert warnings(settings, "load_models") == []


def test_malformed_models_name_key_and_file(tmp_path: Path) -> None:
    path = place(tmp_path, NEW, HEAD + "a=b\nmodel_snapshot={\n")
    with pytest.raises(ConfigurationError) as refused:
        start(tmp_path)
    assert str(refused.value).startswith("model_snapshot: no valid JSON: ")
    assert f"(model_snapshot, {path}:5)" in str(refused.value)
