"""What a user gets who installs the wheel: its content, and a server from an environment that has only the wheel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

import pytest

from harness.archives import ECHO, pack
from harness.server import ServerProcess

ROOT = Path(__file__).parents[2]
VERSION = (ROOT / "modelserver" / "ts" / "version.txt").read_text().strip()
PACKAGES = {
    "modelserver": "modelserver",
    "model_archiver": "archiver/model_archiver",
    "workflow_archiver": "archiver/workflow_archiver",
    "ts": "modelserver/ts",
}
OFFLINE = ("--quiet", "--no-deps", "--no-index", "--no-cache-dir", "--disable-pip-version-check")  # options of pip
SCRIPTS = {
    "modelserver": "modelserver.cli:main",
    "torchserve": "modelserver.cli:main",
    "torch-model-archiver": "model_archiver.model_packaging:generate_model_archive",
    "torch-workflow-archiver": "workflow_archiver.workflow_packaging:generate_workflow_archive",
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout: setuptools leaves build/ and an egg-info directory where it builds."""
    copy = tmp_path_factory.mktemp("checkout") / "modelserver"
    untracked = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "logs")
    return shutil.copytree(ROOT, copy, ignore=untracked)


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built with the setuptools of this environment."""
    directory = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", *OFFLINE, "--no-build-isolation", "--wheel-dir", directory, checkout)
    (built,) = directory.iterdir()
    return built


@pytest.fixture(scope="module")
def content(wheel: Path) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(wheel) as archive:
        yield archive


@pytest.fixture(scope="module")
def bin_directory(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of a fresh environment with the wheel in it.

    The dependencies are those of this environment, found through a path file. That does not bring in the editable
    installation: path files work only in an environment's own directory. It is written after the installation, or pip
    would see this environment's modelserver and want to replace it.
    """
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, symlinks=True)
    python = directory / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", *OFFLINE, wheel)
    (packages,) = directory.glob("lib/python*/site-packages")
    borrowed = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (packages / "dependencies.pth").write_text("\n".join(borrowed))
    return directory / "bin"


def run(*command: str | Path, directory: Path | None = None) -> str:
    """What a command prints; it must succeed, and sees no Python path but its own."""
    finished = subprocess.run(
        list(map(str, command)),
        cwd=directory,
        env={**environment(), **({"TMPDIR": str(directory)} if directory else {})},  # where the pid file would be
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout
    return finished.stdout


def environment() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def metadata_file(content: zipfile.ZipFile, name: str) -> str:
    return content.read(f"modelserver-{VERSION}.dist-info/{name}").decode()


def test_the_wheel_holds_every_module_and_nothing_else(content: zipfile.ZipFile, checkout: Path) -> None:
    expected = {
        f"{package}/{path.relative_to(checkout / directory).as_posix()}"
        for package, directory in PACKAGES.items()
        for path in (checkout / directory).rglob("*")
        if path.is_file()
    }
    expected = {name for name in expected if not name.startswith("modelserver/ts/")}
    held = {name for name in content.namelist() if ".dist-info/" not in name}
    assert held == expected
    assert {PurePosixPath(name).parts[0] for name in held} == PACKAGES.keys()
    assert set(metadata_file(content, "top_level.txt").split()) == PACKAGES.keys()


def test_data_files_are_in(content: zipfile.ZipFile) -> None:
    held = set(content.namelist())
    assert {"ts/version.txt", "ts/configs/metrics.yaml", "modelserver/py.typed"} <= held
    assert content.read("ts/configs/metrics.yaml") == (ROOT / "modelserver/ts/configs/metrics.yaml").read_bytes()
    assert metadata_file(content, "licenses/LICENSE") == (ROOT / "LICENSE").read_text()


def test_no_tests_are_in(content: zipfile.ZipFile) -> None:
    imported_by_users = "ts/torch_handler/unit_tests/"  # stand-ins for their own tests
    names = [name for name in content.namelist() if not name.startswith(imported_by_users)]
    assert not [name for name in names if "test" in name.lower() or "conftest" in name]


def test_metadata(content: zipfile.ZipFile) -> None:
    metadata = HeaderParser().parsestr(metadata_file(content, "METADATA"))
    assert (metadata["Name"], metadata["Version"]) == ("modelserver", VERSION)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    mandatory = [need for need in metadata.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert not [need for need in mandatory if need.startswith(("torch", "numpy", "pillow"))]
    assert {"torch", "dev"} <= set(metadata.get_all("Provides-Extra", []))


def test_console_scripts(content: zipfile.ZipFile) -> None:
    entries = ConfigParser(delimiters="=")
    entries.read_string(metadata_file(content, "entry_points.txt"))
    assert entries.sections() == ["console_scripts"]
    assert dict(entries["console_scripts"]) == SCRIPTS


def test_installed_packages_are_those_of_the_wheel(bin_directory: Path, tmp_path: Path) -> None:
    code = f"import {', '.join(PACKAGES)}; print(*(m.__file__ for m in ({', '.join(sorted(PACKAGES))})))"
    files = run(bin_directory / "python", "-W", "error", "-c", code, directory=tmp_path).split()
    for package, file in zip(sorted(PACKAGES), files, strict=True):
        assert file.startswith(f"{bin_directory.parent}/lib/"), file
        assert file.endswith(f"/site-packages/{package}/__init__.py")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["modelserver", "--version"], f"TorchServe Version is {VERSION}\n"),
        (["torchserve", "--version"], f"TorchServe Version is {VERSION}\n"),
        (["torch-model-archiver", "--help"], "usage: torch-model-archiver [-h] --model-name"),
        (["torch-workflow-archiver", "--help"], "usage: torch-workflow-archiver [-h] --workflow-name"),
        (["python", "-W", "error", "-m", "model_archiver.model_packaging", "--help"], "usage: torch-model-archiver"),
        (["python", "-W", "error", "-c", "import ts; print(ts.__version__)"], f"{VERSION}\n"),
    ],
    ids=lambda value: " ".join(value[:1] + value[-2:]) if isinstance(value, list) else "",
)
def test_installed_commands(bin_directory: Path, tmp_path: Path, command: list[str], expected: str) -> None:
    assert run(bin_directory / command[0], *command[1:], directory=tmp_path).startswith(expected)


PLACES = """
import modelserver, ts
def handle(data, context):
    return None if data is None else [f"{modelserver.__file__} {ts.__file__}"] * len(data)
"""


def test_the_installed_server_serves(bin_directory: Path, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, models=["echo.mar", "places.mar"], program=bin_directory / "modelserver")
    for name in {"PYTHONPATH", "PYTHONHOME"} & server.environment.keys():
        del server.environment[name]
    pack(server.store, "echo", ECHO)
    pack(server.store, "places", PLACES)
    with server:
        assert server.predict("echo", b"hello").text == "hello"
        for place in server.predict("places").text.split():
            assert place.startswith(f"{bin_directory.parent}/lib/"), "workers run what was installed"
        assert f"Torchserve version: {VERSION}" in server.output
        assert server.stop() == 0


def test_the_check_knows_its_own_files(bin_directory: Path, tmp_path: Path) -> None:
    """Those that TorchServe's packages have written over, or taken along when they went."""

    def about_installation() -> list[str]:
        command = [str(bin_directory / "modelserver"), "--check", "json", "--ncs"]
        done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
        findings = json.loads(done.stdout)["findings"]
        return [one["what"] for one in findings if one["where"] == "installation"]

    (module,) = bin_directory.parent.glob("lib/python*/site-packages/ts/context.py")
    ours = module.read_text()
    assert about_installation() == []
    try:
        module.write_text("theirs = True\n")
        assert about_installation() == ["ts/context.py is not ours"]
        module.unlink()
        assert about_installation() == ["ts/context.py is gone: another package has been uninstalled over it"]
    finally:
        module.write_text(ours)
