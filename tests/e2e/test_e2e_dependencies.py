"""Models that bring their own packages: installed beside them, or into a virtual environment; never anywhere else."""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from harness.archives import NOOP, pack
from harness.server import ServerProcess, ended, eventually
from harness.wheels import make_wheel

# Answers with what the worker is and which packages it sees.
WITNESS = """
import importlib, json, os, sys

def seen(name):
    try:
        module = importlib.import_module(name)
    except ImportError:
        return None
    return {"file": module.__file__, "version": getattr(module, "VERSION", None)}

def handle(data, context):
    if data is None:
        return None
    facts = {name: seen(name) for name in ("tinypack", "numpy", "msgspec", "stocked", "modelserver.worker.main")}
    facts |= {"executable": sys.executable, "prefix": sys.prefix, "cwd": os.getcwd()}
    facts["environment"] = dict(os.environ)
    return [facts] * len(data)
"""

# What a package does when pip builds it: tell its pid, and never end.
ENDLESS = """
import os, pathlib, time
pathlib.Path({!r}).write_text(str(os.getpid()))
time.sleep(600)
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    make_wheel(folder, "tinypack", "2.5")
    make_wheel(folder, "numpy", "99.0")
    return folder


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has no packages at all, the server's neither."""
    venv = tmp_path_factory.mktemp("foreign") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    return venv


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the server is told to take packages from."""
    return make_wheel(tmp_path_factory.mktemp("stock"), "stocked", "1.5").parent


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, foreign: Path, stock: Path) -> Iterator[ServerProcess]:
    config = {"install_py_dep_per_model": "true", "blacklist_env_vars": "SECRET_.*|PIP_CONFIG_FILE"}
    config["wheel_directory"] = str(stock)
    # pip would refuse to do anything with this file, if it were not for the list.
    environment = {"PIP_CONFIG_FILE": "/dev/null/none", "SECRET_KEY": "x"}
    environment["PATH"] = f"{foreign / 'bin'}{os.pathsep}{os.environ['PATH']}"
    directory = tmp_path_factory.mktemp("dependencies")
    with ServerProcess(directory, config=config, environment=environment) as running:
        yield running


def directories(server: ServerProcess) -> list[Path]:
    models = server.temp / "models"
    return list(models.iterdir()) if models.exists() else []


def nothing_left(server: ServerProcess, model: str, processes: int) -> None:
    """The model is gone with its directory, its temporary files and its processes."""
    assert server.request("GET", f"/models/{model}", "Management").status_code == 404
    assert directories(server) == []
    eventually(lambda: len(server.tree()) == processes)


def refused(server: ServerProcess, url: str, message: str) -> dict[str, Any]:
    """Register in vain; returns the `cause`."""
    processes = len(server.tree())
    answer = server.register(url, model_name="m")
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["type"], body["message"]) == (400, "ModelException", message)
    nothing_left(server, "m", processes)
    cause: dict[str, Any] = body["cause"]
    assert cause["reason"] == "dependency installation failed"
    return cause


@pytest.fixture
def facts(server: ServerProcess) -> Iterator[Any]:
    """Registers an archive as `m` and asks its worker; unregisters it in the end."""

    def ask(url: str) -> Mapping[str, Any]:
        answer = server.register(url, model_name="m")
        assert answer.status_code == 200, answer.text
        answered: dict[str, Any] = server.predict("m").json()
        return answered

    yield ask
    assert server.request("DELETE", "/models/m", "Management").status_code == 200
    eventually(lambda: directories(server) == [])


def test_packages_beside_the_model(server: ServerProcess, wheels: Path, facts: Any) -> None:
    pack(server.store, "m", WITNESS, archive="beside", requirements=f"-f {wheels}\ntinypack>=2\n")
    seen = facts("beside.mar")
    (directory,) = directories(server)
    assert seen["tinypack"] == {"file": str(directory / "tinypack" / "__init__.py"), "version": "2.5"}
    assert seen["cwd"] == str(directory)
    assert seen["prefix"] == sys.prefix
    assert "SECRET_KEY" not in seen["environment"]
    server.says("Installed custom pip packages for model m")
    assert "no effect" not in server.output


def test_packages_come_from_the_folder_of_wheels(server: ServerProcess, facts: Any) -> None:
    pack(server.store, "m", WITNESS, archive="stocked", requirements="stocked\n")
    assert facts("stocked.mar")["stocked"]["version"] == "1.5"


def test_the_same_requirements_are_installed_once(server: ServerProcess, wheels: Path, facts: Any) -> None:
    pack(server.store, "m", WITNESS, archive="first", requirements=f"-f {wheels}\ntinypack\n")
    pack(server.store, "m", NOOP, archive="second", version="2.0", requirements=f"-f {wheels}\ntinypack\n")
    seen = facts("first.mar")
    assert server.register("second.mar", model_name="m").status_code == 200
    one, other = ((directory / "tinypack").readlink() for directory in directories(server))
    assert one == other
    assert one.is_relative_to(server.directory / "cache" / "modelserver" / "environments")
    server.says(f"Packages for model m have been installed before: {one.parent}")
    assert seen["tinypack"]["version"] == "2.5"
    assert server.request("DELETE", "/models/m/2.0", "Management").status_code == 200


def test_an_interpreter_that_knows_nothing_of_the_server(server: ServerProcess, foreign: Path, facts: Any) -> None:
    """It is told what it lacks; with that it serves."""
    pack(server.store, "m", WITNESS, archive="strange")
    answer = server.register("strange.mar", model_name="m", runtime="python3")
    assert answer.status_code == 500
    (told,) = [line for line in answer.json()["cause"]["lastOutput"] if "cannot run workers" in line]
    assert "No module named" in told
    needed = told.partition(" -m pip install ")[2].split()
    assert set(needed) == {"msgspec", "packaging", "psutil", "pyyaml", "setproctitle"}
    packages = foreign / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    for name in (*set(needed) - {"pyyaml"}, "yaml"):
        module = importlib.import_module(name)
        assert module.__file__ is not None
        (packages / name).symlink_to(Path(module.__file__).parent)
    assert server.register("strange.mar", model_name="m", runtime="python3").status_code == 200
    seen = server.predict("m").json()
    assert (seen["executable"], seen["numpy"]) == (str(foreign / "bin" / "python3"), None)


def test_a_package_that_the_server_has_imported_already(server: ServerProcess, wheels: Path, facts: Any) -> None:
    pack(server.store, "m", WITNESS, archive="newer", requirements=str(wheels / "numpy-99.0-py3-none-any.whl"))
    seen = facts("newer.mar")
    (directory,) = directories(server)
    assert seen["numpy"] == {"file": str(directory / "numpy" / "__init__.py"), "version": "99.0"}


def test_a_virtual_environment(server: ServerProcess, wheels: Path, facts: Any) -> None:
    pack(
        server.store,
        "m",
        WITNESS,
        archive="venv",
        config="useVenv: true",
        requirements=f"-f {wheels}\ntinypack\nnumpy==99.0\n",
    )
    seen = facts("venv.mar")
    (directory,) = directories(server)
    venv = directory / "venv"
    packages = venv / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    assert (seen["executable"], seen["prefix"]) == (str(venv / "bin" / "python"), str(venv))
    assert seen["tinypack"] == {"file": str(packages / "tinypack" / "__init__.py"), "version": "2.5"}
    assert seen["numpy"]["version"] == "99.0"
    assert not Path(seen["msgspec"]["file"]).is_relative_to(venv), "packages of the server stay importable"
    assert not (directory / "tinypack").exists()
    assert seen["environment"]["PYTHONPATH"].split(":")[-1] == str(directory)
    assert server.describe("m")["useVenv"] is True
    server.says(f"Created virtual environment for model m: {venv}")


def test_a_virtual_environment_without_requirements(server: ServerProcess, facts: Any) -> None:
    pack(server.store, "m", WITNESS, archive="bare-venv", config="useVenv: true")
    seen = facts("bare-venv.mar")
    (directory,) = directories(server)
    assert seen["prefix"] == str(directory / "venv")
    assert (seen["tinypack"], seen["numpy"]["version"]) == (None, None)


def test_a_directory_of_the_operator_stays_as_it_is(server: ServerProcess, wheels: Path, facts: Any) -> None:
    source = server.directory / "operators" / "dirm"
    (source / "MAR-INF").mkdir(parents=True)
    manifest = {"model": {"modelName": "m", "handler": "h.py", "requirementsFile": "needs.txt"}}
    (source / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (source / "h.py").write_text(WITNESS)
    (source / "needs.txt").write_text(f"-f {wheels}\ntinypack\n")
    seen = facts(str(source))
    (root,) = directories(server)
    assert seen["tinypack"]["file"] == str(root / "tinypack" / "__init__.py")
    assert {path.name for path in source.iterdir()} <= {"MAR-INF", "h.py", "needs.txt", "__pycache__"}


def test_a_requirement_that_does_not_exist(server: ServerProcess) -> None:
    message = "Custom pip package installation failed for model m"
    pack(server.store, "m", NOOP, archive="unknown", requirements="no-such-package-anywhere")
    cause = refused(server, "unknown.mar", message)
    assert cause["exitCode"] == 1
    assert cause["detail"] == "No matching distribution found for no-such-package-anywhere"
    assert any("no-such-package-anywhere" in line for line in cause["lastOutput"])
    line = eventually(lambda: next((line for line in server.lines if line.endswith(f"{message}:")), ""))
    assert "ERROR" in line
    at = server.lines.index(line) + 1
    eventually(lambda: "no-such-package-anywhere" in "\n".join(server.lines[at : at + 9]))


def test_a_requirement_that_does_not_exist_in_a_virtual_environment(server: ServerProcess) -> None:
    pack(
        server.store,
        "m",
        NOOP,
        archive="unknown-venv",
        config="useVenv: true",
        requirements="no-such-package-anywhere",
    )
    refused(server, "unknown-venv.mar", "Custom pip package installation failed for model m")


def endless(server: ServerProcess, name: str) -> Path:
    """Pack model `m` with a requirement that pip builds for ever; returns the file that tells the builder's pid."""
    told = server.directory / f"{name}-pid"
    package = server.directory / f"{name}-package"
    package.mkdir()
    (package / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "endless"\nbackend-path = ["."]\n'
    )
    (package / "endless.py").write_text(ENDLESS.format(str(told)))
    pack(server.store, "m", NOOP, archive=name, requirements=str(package))
    return told


def builder(told: Path) -> psutil.Process:
    """The process that builds, once it does."""
    return psutil.Process(int(eventually(lambda: told.exists() and told.read_text())))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_server_is_the_end_of_pip(tmp_path: Path, number: int) -> None:
    server = ServerProcess(tmp_path, config={"install_py_dep_per_model": "true", "drain_timeout": "1"})
    told = endless(server, "endless")
    server.start()
    place = httpx.URL(server.url("Management"))
    with socket.create_connection((place.host, place.port or 80)) as client:
        client.sendall(
            b"POST /models?url=endless.mar&initial_workers=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        )
        child = builder(told)
    assert not ended(child), "its client has left, which does not end it"
    assert server.request("GET", "/ping").status_code == 200, "the server serves on meanwhile"
    server.stop(number)
    eventually(lambda: ended(child))
    if number == signal.SIGTERM:
        assert directories(server) == []


def test_a_signal_ends_pip_at_start(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, config={"install_py_dep_per_model": "true"}, models=["m=endless.mar"])
    told = endless(server, "endless")
    server.start(wait=False)
    child = builder(told)
    assert server.stop() == 0
    eventually(lambda: ended(child))
    assert directories(server) == []
    assert not server.started


def test_nothing_is_installed_by_default(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        pack(server.store, "m", WITNESS, requirements="no-such-package-anywhere")
        assert server.register("m.mar").status_code == 200
        assert server.predict("m").json()["tinypack"] is None
