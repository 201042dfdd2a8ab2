"""What a start takes up: which file, which models, and what happens when something of it is gone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import javaproperties
import pytest

from contract.server import TORCHSERVE, ContractServer
from contract.snapshot_server import again, configure, fails, files, models, properties, registered, saving
from harness.archives import NOOP, pack

check = pytest.mark.check
HAND_WRITTEN = {
    "name": "startup.cfg",
    "modelCount": 1,
    "models": {
        "digits": {
            "1.0": {
                "defaultVersion": True,
                "marName": "noop.mar",
                "minWorkers": 0,
                "maxWorkers": 5,
                "batchSize": 5,
                "maxBatchDelay": 200,
            }
        }
    },
}
FIELDS = ("modelVersion", "minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout")


def rewrite(path: Path, tree: dict[str, Any]) -> None:
    """Put other models into a file, in another spacing."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("model_snapshot=")]
    path.chmod(0o644)
    path.write_text("\n".join([*lines, f"model_snapshot={json.dumps(tree)}"]) + "\n")


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> ContractServer:
    """A server that has saved one model, and stopped; `kept` beside its directories is what it has left."""
    directory = tmp_path_factory.mktemp("left")
    with saving(directory, archives=("noop", "other")) as server:
        server.register("noop.mar", workers=0)
    for name in ("logs", "store"):
        shutil.copytree(directory / name, directory / "kept" / name)
    return server


@pytest.fixture
def stopped(left: ContractServer) -> Iterator[ContractServer]:
    """The same for one test, which may start it again and change its files."""
    for name in ("logs", "store"):
        shutil.rmtree(left.directory / name)
        shutil.copytree(left.directory / "kept" / name, left.directory / name)
    yield left
    left.stop()


@check("snapshot", 8)
@check("snapshot", 19)
@check("snapshot", 23)
@check("model config", 22)
def test_a_plain_restart(tmp_path: Path) -> None:
    """The same models, versions, default version, numbers of workers and options; those of the archive come after."""
    server = saving(tmp_path)

    def described() -> list[tuple[Any, ...]]:
        answer = server.request("GET", "/models/noop/all", "Management").json()
        return sorted(tuple(version[field] for field in FIELDS) for version in answer)

    with server:
        config = "jobQueueSize: 7\nresponseTimeout: 33\nminWorkers: 2\nmaxWorkers: 2\nbatchSize: 5\n"
        pack(server.store, "noop", NOOP, version="2.0", archive="newer", config=config)
        server.register("noop.mar", workers=0, batch_size=4, max_batch_delay=70)
        server.register("newer.mar", workers=0, model_name="noop", startup_timeout=66, batch_size=6)
        server.request("PUT", "/models/noop/2.0/set-default", "Management")
        server.rescale("noop", min_worker=1, max_worker=1)
        server.ready("noop")
        before = described()
    again(server)
    with_workers = server.ready("noop")
    description = server.describe("noop")
    assert described() == before
    assert (description["modelVersion"], len(with_workers)) == ("2.0", 1)
    assert description["jobQueueStatus"]["remainingCapacity"] == 7
    assert description["loadedAtStartup"] is False
    assert description["modelUrl"] == "newer.mar"
    assert [path.name[18:] for path in files(server)][-2:] == ["shutdown.cfg", "startup.cfg"]
    server.stop()


@check("snapshot", 9)
@check("snapshot", 10)
def test_a_named_file(stopped: ContractServer) -> None:
    """Read-only is enough; without it there is no start."""
    (kept,) = files(stopped, "snapshot")
    copy = stopped.directory / "copy.cfg"
    shutil.copy(kept, copy)
    copy.chmod(0o444)
    again(stopped, "--ts-config", "copy.cfg")
    assert registered(stopped) == ["noop"]
    stopped.stop()
    again(stopped, "--ts-config", "gone.cfg", wait=False)
    assert stopped.wait() == 1
    assert stopped.lines[-1] == "--ts-config file not found: gone.cfg"


@check("snapshot", 7)
def test_a_rewritten_file(stopped: ContractServer) -> None:
    """Other spacing and no runtime are fine."""
    tree = models(files(stopped)[-1])
    del tree["models"]["noop"]["1.0"]["runtimeType"]
    rewrite(files(stopped)[-1], tree)
    again(stopped)
    assert registered(stopped) == ["noop"]


@check("snapshot", 11)
def test_a_missing_archive_stops_the_start(tmp_path: Path) -> None:
    """Also one of two."""
    with saving(tmp_path, archives=("noop", "other")) as server:
        for name in ("noop", "other"):
            server.register(f"{name}.mar", workers=0)
    (server.store / "other.mar").rename(tmp_path / "other.mar")
    output = fails(server)
    assert "Model archive file for model other, version 1.0 not found in model store" in output
    assert "InvalidSnapshotException: Model archive file for model :other, version :1.0 not found in" in output


@check("snapshot", 12)
@pytest.mark.fixed("failed starts")
def test_a_failed_start_does_not_spoil_the_next_one(stopped: ContractServer) -> None:
    """It saves nothing."""
    before = files(stopped)
    (stopped.store / "noop.mar").rename(stopped.directory / "noop.mar")
    fails(stopped)
    assert files(stopped) == before
    (stopped.directory / "noop.mar").rename(stopped.store / "noop.mar")
    again(stopped)
    assert registered(stopped) == ["noop"]


@check("snapshot", 13)
def test_junk_in_place_of_an_archive(stopped: ContractServer) -> None:
    """The server starts and lists the model."""
    (stopped.store / "noop.mar").write_text("junk")
    again(stopped)
    assert registered(stopped) == ["noop"]


@check("snapshot", 14)
def test_models_on_the_command_line(stopped: ContractServer) -> None:
    """Are not loaded where models are restored."""
    again(stopped, "--models", "other.mar")
    assert registered(stopped) == ["noop"]
    if not TORCHSERVE:
        assert "load_models has no effect" in stopped.output


@check("snapshot", 15)
def test_models_written_by_hand(tmp_path: Path) -> None:
    """On one line, without what a saved configuration adds."""
    server = saving(tmp_path)
    configure(server, model_snapshot=json.dumps(HAND_WRITTEN))
    with server:
        description = server.describe("digits")
        assert [description[field] for field in FIELDS] == ["1.0", 0, 5, 5, 200, 120, 120]
        assert description["loadedAtStartup"] is False


@check("snapshot", 16)
def test_an_empty_snapshot(tmp_path: Path) -> None:
    server = saving(tmp_path)
    configure(server, load_models="noop.mar", model_snapshot=json.dumps({**HAND_WRITTEN, "modelCount": 0}))
    with server:
        assert registered(server) == []
        assert "Model snapshot is empty. Starting TorchServe without initial models." in server.output


@check("snapshot", 18)
@pytest.mark.fixed("stray files")
def test_a_stray_file(stopped: ContractServer) -> None:
    """Changes nothing, wherever it would stand in the order."""
    for name in ("notes.txt", "99999-notes.cfg"):
        (stopped.directory / "logs" / "config" / name).write_text("model_store=/nowhere\n")
    again(stopped)
    assert registered(stopped) == ["noop"]
    assert "skipped: 99999-notes.cfg, notes.txt" in stopped.output


@check("snapshot", 20)
def test_the_usual_file(tmp_path: Path) -> None:
    """Is read where no configuration was saved, and where none is wanted."""
    server = saving(tmp_path)
    with server:
        server.register("noop.mar", workers=0)
    configure(server, job_queue_size="7")
    again(server)
    assert server.describe("noop")["jobQueueStatus"]["remainingCapacity"] == 100
    server.stop()
    again(server, "--ncs")
    assert registered(server) == []
    server.register("noop.mar", workers=0)
    assert server.describe("noop")["jobQueueStatus"]["remainingCapacity"] == 7
    server.stop()


@check("snapshot", 21)
def test_models_to_load(tmp_path: Path) -> None:
    """Keep their names through a file."""
    server = saving(tmp_path)
    configure(server, load_models="first=noop.mar", default_workers_per_model="1")
    with server:
        (path,) = files(server)
    assert "\nload_models=first\\=noop.mar\n" in path.read_text()
    assert properties(path)["load_models"] == "first=noop.mar"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("model_snapshot=")]
    (tmp_path / "copy.cfg").write_text("\n".join(lines))
    again(server, "--ts-config", "copy.cfg")
    assert registered(server) == ["first"]
    server.stop()


@check("snapshot", 22)
@pytest.mark.parametrize("name", ["20261120123605223-shutdown.cfg", "20261120123622707-snapshot.cfg"])
def test_files_of_torchserve(tmp_path: Path, name: str) -> None:
    """Restore, wherever the model store is now; what this server writes then is read as Java reads it."""
    server = saving(tmp_path, archives=("noop", "configured"))
    pack(server.store, "noop", NOOP, version="2.0", archive="noop_v2")
    ports = javaproperties.loads((tmp_path / "config.properties").read_bytes())
    saved = javaproperties.loads((Path(__file__).parents[1] / "settings" / "snapshots" / name).read_bytes())
    entries = json.loads(saved["model_snapshot"])
    for entry in (entry for versions in entries["models"].values() for entry in versions.values()):
        entry["minWorkers"] = 0
    folder = tmp_path / "logs" / "config"
    folder.mkdir(parents=True)
    text = "#Saving snapshot\n" + javaproperties.dumps({**saved, **ports, "model_snapshot": json.dumps(entries)})
    (folder / name).write_text(text)
    with server:
        assert registered(server) == sorted(entries["models"])
        description = server.describe("noop")
        assert (description["modelVersion"], description["batchSize"]) == ("2.0", 3)
        latest = files(server)[-1]
    assert properties(latest)["NUM_WORKERS"] == "a b\tc #!:=\\ x"
    assert set(models(latest)["models"]) == set(entries["models"])
