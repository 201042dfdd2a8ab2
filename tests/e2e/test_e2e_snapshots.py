"""Saved configurations of real servers: they bring everything back, and never stand in the way."""

from __future__ import annotations

import json
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path

import httpx
import javaproperties
import pytest

from harness.archives import ECHO, NOOP, pack
from harness.disks import fill, needs_mounts, tiny_disk
from harness.server import DEADLINE, BackgroundServer, ServerProcess, eventually

SAVING = ("--disable-token-auth", "--enable-model-api")
COMPLAINT = "Error while saving snapshot"


def saved(server: ServerProcess) -> list[Path]:
    """Files in the directory of saved configurations, oldest first."""
    folder = server.directory / "logs" / "config"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def test_the_command_alone_brings_everything_back(tmp_path: Path) -> None:
    """In the background, without a file, a model store or a model on the command line."""
    with BackgroundServer(tmp_path, flags=SAVING) as server:
        pack(server.store, "echo", ECHO)
        assert server.register("echo.mar").status_code == 200
        assert server.predict("echo", b"before").content == b"before"
    (tmp_path / "config.properties").unlink()
    server.lines.clear()
    server.command = [str(server.program), "--start"]
    with server:
        eventually(lambda: server.ready_workers("echo"))
        assert server.predict("echo", b"after").content == b"after"
        assert f"Config file: {saved(server)[-2]}" in server.lines, "the one before the one of this start"


def test_a_handler_given_at_registration_comes_back(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, flags=SAVING) as server:
        pack(server.store, "m", NOOP, files={"other.py": ECHO})
        assert server.register("m.mar", handler="other.py:handle").status_code == 200
    server.lines.clear()
    server.command += ["--ts-config", str(saved(server)[-1])]
    with server:
        eventually(lambda: server.ready_workers("m"))
        assert server.predict("m", b"hello").content == b"hello"


def test_a_model_outside_the_store_comes_back(tmp_path: Path) -> None:
    away = tmp_path / "away"
    (away / "MAR-INF").mkdir(parents=True)
    (away / "MAR-INF" / "MANIFEST.json").write_text(json.dumps({"model": {"modelName": "m", "handler": "h.py"}}))
    (away / "h.py").write_text(NOOP)
    with ServerProcess(tmp_path, flags=SAVING) as server:
        assert server.register(str(away)).status_code == 200
    server.lines.clear()
    server.command += ["--ts-config", str(saved(server)[-1])]
    with server:
        eventually(lambda: server.ready_workers("m"))


def test_one_broken_model_does_not_keep_the_others(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, flags=SAVING) as server:
        for name in ("first", "second"):
            pack(server.store, name, NOOP)
            server.register(f"{name}.mar", workers=0)
    broken = server.store / "first.mar"
    broken.write_bytes(broken.read_bytes()[:100])
    server.lines.clear()
    server.command += ["--ts-config", str(saved(server)[-1])]
    with server:
        models = server.request("GET", "/models", "Management").json()["models"]
        assert [model["modelName"] for model in models] == ["second"]
        assert "Error while registering model. Details: Failed to save model: first.mar" in server.output


def test_a_place_where_nothing_can_be_written(tmp_path: Path) -> None:
    """Is told once; serving goes on, and so does managing."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "config").touch()
    with ServerProcess(tmp_path, flags=SAVING) as server:
        pack(server.store, "echo", ECHO)
        assert server.register("echo.mar").status_code == 200
        assert server.scale("echo", 2).status_code == 200
        assert server.predict("echo", b"served").content == b"served"
    assert server.output.count(COMPLAINT) == 1


@needs_mounts()
def test_a_full_disk(tmp_path: Path) -> None:
    """Is told once and leaves no pieces; when there is room again, it is used."""
    (tmp_path / "logs").mkdir()
    with tiny_disk(tmp_path / "logs" / "config", 1 << 16) as disk:
        filler = fill(disk)
        with ServerProcess(tmp_path, flags=SAVING) as server:
            pack(server.store, "m", NOOP)
            assert server.register("m.mar", workers=0).status_code == 200
            assert saved(server) == [filler]
            filler.unlink()
            assert server.request("PUT", "/models/m/1.0/set-default", "Management").status_code == 200
            assert [path.name[18:] for path in saved(server)] == ["snapshot.cfg"]
    assert server.output.count(COMPLAINT) == 1


def test_a_start_that_fails_saves_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        server = ServerProcess(tmp_path, flags=SAVING, config={"metrics_address": address})
        server.start(wait=False)
        assert server.wait() == 1
    assert saved(server) == []


@pytest.mark.parametrize("signals", [1, 3])
def test_a_stop_saves_once(tmp_path: Path, signals: int) -> None:
    """However impatient."""
    with ServerProcess(tmp_path, flags=SAVING) as server:
        assert server.process is not None
        for _ in range(signals):
            server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    assert [path.name[18:] for path in saved(server)] == ["startup.cfg", "shutdown.cfg"]


def test_a_kill_in_the_middle_leaves_whole_files(tmp_path: Path) -> None:
    """And a start after it."""
    server = ServerProcess(tmp_path, flags=SAVING)
    server.start()
    pack(server.store, "m", NOOP)
    server.register("m.mar", workers=0)
    url = f"{server.url('Management')}/models/m/1.0/set-default"

    def change_until_it_dies() -> None:
        with httpx.Client() as client, suppress(httpx.TransportError):
            while True:
                client.put(url)

    busy = threading.Thread(target=change_until_it_dies)
    busy.start()
    eventually(lambda: len(saved(server)) > 50)
    server.tree()[0].kill()
    busy.join(DEADLINE)
    server.wait()
    files = [path for path in saved(server) if not path.name.startswith(".")]
    for path in files:
        snapshot = json.loads(javaproperties.loads(path.read_bytes())["model_snapshot"])
        assert snapshot["name"] == path.name
    server.lines.clear()
    server.command += ["--ts-config", str(files[-1])]
    with server:
        assert server.describe("m")["modelVersion"] == "1.0"
        assert not [path for path in saved(server) if path.name.startswith(".")]
