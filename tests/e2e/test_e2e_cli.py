"""The command in front of the real server: background and foreground, pid file, signals, files, environment."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from pathlib import Path

import httpx
import psutil
import pytest

from harness.archives import NOOP, pack
from harness.server import MODELSERVER, BackgroundServer, ServerProcess, ended, eventually

MARKER = "org.pytorch.serve.ModelServer"
TORCHSERVE = MODELSERVER.with_name("torchserve")
APIS = ("Inference", "Management", "Metrics")


def addresses(server: ServerProcess) -> list[tuple[str, int]]:
    """Where the three APIs listen."""
    urls = [httpx.URL(server.url(api)) for api in APIS]
    return [(url.host, url.port or 0) for url in urls]


def refused(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=60).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.check("cli", 8)
@pytest.mark.check("cli", 9)
def test_life_in_the_background(tmp_path: Path) -> None:
    server = BackgroundServer(tmp_path, models=["m=m.mar"])
    pack(server.store, "m", NOOP)
    with server:
        assert server.process is not None and server.process.poll() == 0
        assert server.predict("m").text == "ok"

        again = server.launch(*server.command[1:])
        already = "TorchServe is already running, please use torchserve --stop to stop TorchServe.\n"
        assert (again.returncode, again.stdout) == (1, already)
        assert server.predict("m").text == "ok"

        stopped = server.launch("--stop")
        assert (stopped.returncode, stopped.stdout) == (0, "TorchServe has stopped.\n")
        assert not server.pid_file.exists()
        assert server.server is not None
        eventually(lambda: server.server is None or ended(server.server))
        assert server.wait() == 0, "the console is closed: nothing holds the pipe any more"
    assert "Torchserve stopped." in server.output
    stopped = server.launch("--stop")
    assert (stopped.returncode, stopped.stdout) == (0, "TorchServe is not currently running.\n")


@pytest.mark.check("cli", 6)
@pytest.mark.check("cli", 7)
def test_a_start_script_reads_up_to_the_ready_line_and_closes_the_pipe(tmp_path: Path) -> None:
    server = BackgroundServer(tmp_path, models=["m=m.mar"])
    pack(server.store, "m", NOOP)
    launcher = subprocess.Popen(
        server.command,
        cwd=server.directory,
        env=server.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert launcher.stdout is not None
    with launcher.stdout as console:
        for line in console:
            server.lines.append(line.rstrip("\n"))
            if server.started:
                break
    status = launcher.poll()
    try:
        assert status == 0, "the command has ended before the server is ready"
        assert server.predict("m").text == "ok"
    finally:
        stopped = server.launch("--stop", "--foreground")
    assert (stopped.returncode, stopped.stdout) == (0, "")


@pytest.mark.check("cli", 12)
def test_stop_in_the_foreground_returns_when_the_ports_are_free(tmp_path: Path) -> None:
    with BackgroundServer(tmp_path) as server:
        tree = server.tree()
        with httpx.Client() as idle:  # its connection stays open
            assert idle.get(server.url() + "/ping").status_code == 200
            stopped = server.launch("--stop", "--foreground")
            assert (stopped.returncode, stopped.stdout) == (0, "")
            for address in addresses(server):
                socket.create_server(address).close()
        assert ended(tree[0])
        eventually(lambda: all(map(ended, tree)))
        assert not server.pid_file.exists()


def test_a_server_can_follow_at_once_on_the_same_ports(tmp_path: Path) -> None:
    first = BackgroundServer(tmp_path)
    with first:
        assert first.launch("--stop", "--foreground").returncode == 0
    host, port = addresses(first)[0]
    with BackgroundServer(tmp_path, config={"inference_address": f"http://{host}:{port}"}) as second:
        assert addresses(second)[0] == (host, port)
        assert second.request("GET", "/ping").status_code == 200


@pytest.mark.check("cli", 9)
def test_the_pid_file_names_the_server(tmp_path: Path) -> None:
    with BackgroundServer(tmp_path) as server:
        assert server.pid_file.read_bytes().isdigit()
        assert server.pid_file.stat().st_mode & 0o777 == 0o644
        assert server.process is not None and server.server is not None
        assert server.server.pid != server.process.pid
        assert MARKER in server.server.cmdline(), "one argument of its own"
        listening = [link.laddr[1] for link in server.server.net_connections() if link.status == psutil.CONN_LISTEN]
        rest = {port for _, port in addresses(server)}
        assert rest < set(listening)
        assert len(listening) == len(rest) + 2, "and two for gRPC"
    assert server.pid_file.exists(), "only the command removes it"


@pytest.mark.parametrize("kind", [ServerProcess, BackgroundServer])
def test_supervisors_find_the_server_and_only_it_by_its_command_line(tmp_path: Path, kind: type[ServerProcess]) -> None:
    server = kind(tmp_path, models=["m=m.mar"])
    pack(server.store, "m", NOOP)
    with server:
        eventually(lambda: server.ready_workers("m"))
        found = [process.pid for process in server.tree() if re.search(MARKER, " ".join(process.cmdline()))]
        assert found == [int(server.pid_file.read_text())]
        if kind is ServerProcess:
            assert server.process is not None and found == [server.process.pid]


@pytest.mark.check("cli", 10)
def test_a_pid_file_left_by_a_crash_is_removed(tmp_path: Path) -> None:
    with BackgroundServer(tmp_path) as server:
        server.stop(signal.SIGKILL)
    assert server.pid_file.exists()
    stopped = server.launch("--stop")
    assert stopped.returncode == 0
    assert stopped.stdout == "Removing orphan pid file.\nTorchServe is not currently running.\n"

    crashed = BackgroundServer(tmp_path)
    with crashed:
        crashed.stop(signal.SIGKILL)
    with BackgroundServer(tmp_path) as server:
        assert server.lines[0] == "Removing orphan pid file."
        assert server.request("GET", "/ping").status_code == 200
        assert server.launch("--stop", "--foreground").returncode == 0


def test_the_background_start_does_not_wait_for_success(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        server = BackgroundServer(tmp_path, config={"inference_address": address})
        server.start(wait=False)
        assert server.wait() == 0
    assert f"Failed to bind to address: {address}: Address already in use" in server.output
    assert server.launch("--version").stdout.startswith("Removing orphan pid file.\nTorchServe Version is ")


@pytest.mark.parametrize(("starts", "stops"), [(TORCHSERVE, MODELSERVER), (MODELSERVER, TORCHSERVE)])
def test_torchserve_is_the_same_program(tmp_path: Path, starts: Path, stops: Path) -> None:
    with BackgroundServer(tmp_path, program=starts) as server:
        assert server.request("GET", "/ping").status_code == 200
        assert server.launch("--start", "--model-store", "store", program=stops).returncode == 1
        stopped = server.launch("--stop", "--foreground", program=stops)
        assert (stopped.returncode, stopped.stdout) == (0, "")
        assert server.server is not None and ended(server.server)


@pytest.mark.check("cli", 22)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_one_signal_ends_a_foreground_server_whole(tmp_path: Path, number: signal.Signals) -> None:
    server = ServerProcess(tmp_path, models=["m=m.mar"])
    pack(server.store, "m", NOOP)
    with server:
        assert server.predict("m").text == "ok"
        listening = addresses(server)
        assert not any(map(refused, listening))
        assert server.stop(number) == 0
        assert all(map(refused, listening))
    assert "Traceback" not in server.output
    assert "Torchserve stopped." in server.lines[-1]


def test_a_foreground_server_can_be_stopped_from_elsewhere(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        assert server.process is not None
        assert server.pid_file.read_text() == str(server.process.pid)
        assert server.launch("--stop").stdout == "TorchServe has stopped.\n"
        assert server.wait() == 0


def test_two_servers_side_by_side(tmp_path: Path) -> None:
    """The pid file follows TMPDIR; even models and workers in one TEMP, with equal worker ids, do not collide."""
    servers = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tmpdir").mkdir()
        environment = {"TMPDIR": str(tmp_path / name / "tmpdir"), "TEMP": str(tmp_path)}
        config = {"default_workers_per_model": 1}
        server = BackgroundServer(tmp_path / name, models=["m=m.mar"], config=config, environment=environment)
        pack(server.store, "m", f'def handle(data, context):\n    return data and ["{name}"] * len(data)\n')
        servers.append(server)
    first, second = servers
    with first, second:
        assert (first.predict("m").text, second.predict("m").text) == ("first", "second")
        assert [server.ready_workers("m")[0]["id"] for server in servers] == ["9000", "9000"]
        (worker,) = second.ready_workers("m")
        assert first.launch("--stop", "--foreground").returncode == 0
        assert second.predict("m").text == "second"
        assert second.ready_workers("m")[0]["pid"] == worker["pid"]
        assert psutil.Process(worker["pid"]).cwd().startswith(str(tmp_path / "models"))
        assert second.launch("--stop", "--foreground").returncode == 0


@pytest.mark.check("cli", 13)
def test_the_configuration_file_of_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / "own.properties").write_text(
        "inference_address=http://127.0.0.1:0\nmanagement_address=http://127.0.0.1:0\n"
        "enable_metrics_api=false\nmax_request_size=10\n"
    )
    server = ServerProcess(tmp_path, models=["m=m.mar"], environment={"TS_CONFIG_FILE": "own.properties"})
    assert "--ts-config" in server.command
    pack(server.store, "m", NOOP)
    with server:
        assert "Config file: own.properties" in server.lines
        assert "Metrics API bind to" not in server.output
        assert server.predict("m", bytes(10)).text == "ok"
        assert server.predict("m", bytes(11)).status_code == 413


@pytest.mark.check("cli", 14)
def test_logs_and_metrics_go_where_the_environment_says(tmp_path: Path) -> None:
    environment = {"LOG_LOCATION": "a", "METRICS_LOCATION": "b/c"}
    server = ServerProcess(tmp_path, models=["m=m.mar"], environment=environment)
    pack(server.store, "m", 'print("loaded")\n' + NOOP)
    with server:
        assert server.predict("m").text == "ok"
    logs = {path.name: path.read_text() for path in (tmp_path / "a").iterdir()}
    metrics = {path.name: path.read_text() for path in (tmp_path / "b" / "c").iterdir()}
    assert logs.keys() == {"access_log.log", "model_log.log", "ts_log.log"}
    assert metrics.keys() == {"model_metrics.log", "ts_metrics.log"}
    assert '"POST /predictions/m HTTP/1.1" 200' in logs["access_log.log"]
    assert "loaded" in logs["model_log.log"]
    assert f"Log dir: {tmp_path}/a\n" in logs["ts_log.log"]
    assert "Requests2XX.Count" in metrics["ts_metrics.log"]
    assert "PredictionTime.ms" in metrics["model_metrics.log"]
    assert not (tmp_path / "logs").exists()


@pytest.mark.check("cli", 15)
def test_a_log_directory_that_cannot_be_made_keeps_nobody_from_serving(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = {"LOG_LOCATION": "file/logs", "METRICS_LOCATION": "file/metrics"}
    server = ServerProcess(tmp_path, models=["m=m.mar"], environment=environment)
    pack(server.store, "m", NOOP)
    with server:
        assert server.predict("m").text == "ok"
        assert server.predict("m").text == "ok"
        assert f"Unable to create file {tmp_path}/file/logs/access_log.log: Not a directory" in server.output
        assert server.stop() == 0
