"""Every setting in force, shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserver.errors import ConfigurationError
from modelserver.settings.command_line import parse
from modelserver.settings.loading import load
from modelserver.settings.report import OTHERS, as_json, as_text
from modelserver.settings.table import Settings, rows

TEXT = """job_queue_size=7
allowed_urls=file://.*, s3://x
keystore_pass=hunter2
blacklist_env_vars=FOO
metrics_mode=prometheus
models={"m": {"1.0": {"batchSize": 2}}}
load_models=m=https://me:hunter2@host/m.mar
vmargs=-Xmx1g -Djavax.net.ssl.keyStorePassword=hunter2 -Da=b
debug=maybe
job_queue=3
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "c.cfg").write_text(TEXT)
    return load(parse(["--ts-config", "c.cfg", "--ncs", "--model-store", "store"]), {}, tmp_path)


def test_text(settings: Settings, tmp_path: Path) -> None:
    lines = as_text(settings).splitlines()
    names = [line.partition("=")[0] for line in lines]
    assert names[: len(rows()) + len(OTHERS)] == [*rows(), *OTHERS]
    for line in (
        "job_queue_size=7  (c.cfg:1)",
        "allowed_urls=file://.*,s3://x  (c.cfg:2)",
        "keystore_pass=********  (c.cfg:3)",
        "blacklist_env_vars=FOO  (c.cfg:4)",
        "metrics_mode=PROMETHEUS  (c.cfg:5)",
        'models={"m": {"1.0": {"batchSize": 2}}}  (c.cfg:6)',
        "load_models=m=https://********@host/m.mar  (c.cfg:7)",
        "vmargs=-Xmx1g -Djavax.net.ssl.keyStorePassword=******** -Da=b  (c.cfg:8)",
        "debug=false  (c.cfg:9)",
        f"model_store={tmp_path}/store  (command line --model-store)",
        f"workflow_store={tmp_path}/store  (key model_store)",
        "inference_address=http://127.0.0.1:8080  (default)",
        "keystore=  (default)",
        "config_file=c.cfg  (default)",
        "snapshots=false  (command line --no-config-snapshots)",
        "WARN Unknown key job_queue: did you mean job_queue_size? (c.cfg:10)",
    ):
        assert line in lines, line


def test_json_says_the_same(settings: Settings) -> None:
    shown = json.loads(as_json(settings))
    assert list(shown["settings"]) == [*rows(), *OTHERS]
    assert shown["settings"]["job_queue_size"] == {"value": 7, "source": "c.cfg:1"}
    assert shown["settings"]["allowed_urls"]["value"] == ["file://.*", "s3://x"]
    assert shown["settings"]["models"]["value"] == {"m": {"1.0": {"batchSize": 2}}}
    assert shown["settings"]["keystore"]["value"] is None
    assert {notice["level"] for notice in shown["notices"]} == {"WARN"}
    assert len(as_text(settings).splitlines()) == len(shown["settings"]) + len(shown["notices"])


def test_passwords_are_not_shown(settings: Settings) -> None:
    assert settings.keystore_pass == "hunter2"
    assert "hunter2" not in as_text(settings) + as_json(settings)


def test_every_password_of_the_table_is_marked() -> None:
    secrets = {key for key, row in rows().items() if row.secret}
    assert secrets == {key for key in rows() if key.endswith("_pass")}


@given(st.sampled_from(sorted(rows())), st.text())
def test_whatever_can_be_set_can_be_shown(tmp_path_factory: pytest.TempPathFactory, key: str, text: str) -> None:
    cwd = tmp_path_factory.getbasetemp()
    environ = dict.fromkeys(rows()[key].env, text)
    (cwd / "shown.cfg").write_text("enable_envvars_config=true\n")
    try:
        settings = load(parse(["--ts-config", "shown.cfg"]), environ, cwd)
    except ConfigurationError:
        return
    as_text(settings).encode()
    json.loads(as_json(settings))
