"""When a configuration is saved, under which name, and what it holds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from contract.server import ContractServer
from contract.snapshot_server import configure, files, models, properties, saving
from harness.archives import NOOP, pack
from harness.server import eventually
from harness.signals import kill

check = pytest.mark.check


@check("snapshot", 1)
@check("snapshot", 5)
@check("snapshot", 17)
def test_a_start_and_a_stop(tmp_path: Path) -> None:
    """One file each, where the log files are."""
    server = saving(tmp_path)
    assert server.environment["LOG_LOCATION"] == str(tmp_path / "logs")
    with server:
        assert [path.name[18:] for path in files(server)] == ["startup.cfg"]
    assert [path.name[18:] for path in files(server)] == ["startup.cfg", "shutdown.cfg"]
    assert all(re.fullmatch(r"\d{17}-(startup|shutdown)\.cfg", path.name) for path in files(server))


@check("snapshot", 2)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_registration(tmp_path: Path, workers: int) -> None:
    """One file, however many workers."""
    with saving(tmp_path) as server:
        assert server.register("noop.mar", workers=workers).status_code == 200
        (path,) = files(server, "snapshot")
        assert models(path)["models"]["noop"]["1.0"]["minWorkers"] == workers


@pytest.mark.fixed("failed registration")
def test_a_registration_that_is_undone(tmp_path: Path) -> None:
    """One file with the model, one without."""
    with saving(tmp_path) as server:
        pack(server.store, "broken", "raise RuntimeError('no')")
        assert server.register("broken.mar").status_code == 500
        first, second = eventually(lambda: found if len(found := files(server, "snapshot")) == 2 else [])
        assert (list(models(first)["models"]), models(second)["models"]) == (["broken"], {})


@check("snapshot", 3)
def test_where_nothing_is_to_be_saved(tmp_path: Path) -> None:
    with saving(tmp_path, "--ncs") as server:
        server.register("noop.mar", workers=0)
    assert not (tmp_path / "logs" / "config").exists()


@check("snapshot", 4)
def test_every_change_is_saved_once(tmp_path: Path) -> None:
    with saving(tmp_path) as server:
        pack(server.store, "noop", NOOP, version="2.0", archive="newer")

        def saved() -> int:
            return len(files(server, "snapshot"))

        server.register("noop.mar", workers=0)
        server.register("newer.mar", workers=0, model_name="noop")
        assert saved() == 2
        assert server.request("PUT", "/models/noop/2.0/set-default", "Management").status_code == 200
        assert saved() == 3
        assert server.scale("noop", 1).status_code == 200
        assert saved() == 4
        assert server.rescale("noop", min_worker=0).status_code == 202
        assert saved() == 5
        assert server.request("DELETE", "/models/noop/1.0", "Management").status_code == 200
        assert saved() == 6
        for method, path in (
            ("GET", "/models"),
            ("GET", "/models/noop"),
            ("PUT", "/models/unknown?min_worker=1"),
            ("PUT", "/models/noop/7.0/set-default"),
            ("DELETE", "/models/unknown"),
            ("POST", "/models?url=unknown.mar"),
        ):
            server.request(method, path, "Management")
        server.predict("noop")
        server.ping()
        assert saved() == 6


@check("snapshot", 6)
def test_what_readers_cut_out(tmp_path: Path) -> None:
    """They unescape colons and line ends by hand."""
    with saving(tmp_path) as server:
        server.register("noop.mar", workers=0)
        (path,) = files(server, "snapshot")
        (line,) = [line for line in path.read_text().splitlines() if line.startswith("model_snapshot=")]
    tree = json.loads(line.removeprefix("model_snapshot=").replace("\\:", ":").replace("\\n", ""))
    assert tree["modelCount"] == 1
    assert tree["name"] == path.name
    assert list(tree["models"]["noop"]["1.0"].items()) == [
        ("defaultVersion", True),
        ("marName", "noop.mar"),
        ("minWorkers", 0),
        ("maxWorkers", 0),
        ("batchSize", 1),
        ("maxBatchDelay", 100),
        ("responseTimeout", 120),
        ("startupTimeout", 120),
        ("runtimeType", "python"),
    ]


def test_everything_in_force_is_saved(tmp_path: Path) -> None:
    """Unknown keys and what the environment overrides too."""
    server = saving(tmp_path, environment={"TS_JOB_QUEUE_SIZE": "55"})
    configure(server, enable_envvars_config="true", NUM_WORKERS="a b=c", job_queue_size="7")
    with server:
        (path,) = files(server)
    found = properties(path)
    assert path.read_text().startswith("#Saving snapshot\n#")
    assert (found["NUM_WORKERS"], found["job_queue_size"]) == ("a b=c", "55")
    assert (found["disable_token_authorization"], found["enable_model_api"]) == ("true", "true")
    assert found["model_store"] == found["workflow_store"] == str(server.store)
    assert {"python", "version", "tsConfigFile"} < set(found)


@pytest.mark.fixed("passwords")
def test_passwords_are_for_one_user(tmp_path: Path) -> None:
    with saving(tmp_path) as server:
        assert [path.stat().st_mode & 0o777 for path in files(server)] == [0o600]


def test_a_killed_server_leaves_no_farewell(tmp_path: Path) -> None:
    """The last change is what the next start finds."""

    def killed(server: ContractServer) -> None:
        kill(*(process.pid for process in server.tree()))
        server.wait()

    server = saving(tmp_path)
    server.start()
    server.register("noop.mar", workers=0)
    killed(server)
    assert [path.name[18:] for path in files(server)] == ["startup.cfg", "snapshot.cfg"]
