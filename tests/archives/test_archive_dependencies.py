"""What is run to install a model's packages, where it may write, and how a failure is told."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from modelserver.archives.archive import Archive
from modelserver.archives.dependencies import Dependencies, Installation, inherit_packages
from modelserver.archives.programs import Stopped
from modelserver.archives.store import ArchiveStore
from modelserver.errors import Cause, ModelError
from modelserver.settings.notices import Notice

# A `python3` that writes down how it was called, puts a package where it was told to, and fails if it is told to.
WITNESS = """#!/bin/sh
echo called >> "$CALL.count"
names=$(env | cut -d= -f1 | tr '\\n' ' ')
printf '%s\\n' "$PWD" "$PYTHONPATH" "$TMPDIR" "$names" "$@" > "$CALL"
test -d "$TMPDIR" && touch "$TMPDIR/rubbish"
mkdir -p "$6/brought" "$6/__pycache__"
if test -n "$FAIL"; then printf "$FAIL"; exit 7; fi
"""


class House:
    """A store with one directory model in it, and a `python3` that only takes notes."""

    def __init__(self, root: Path, **model: Any) -> None:
        self.root = root
        self.temp = root / "temp"
        self.call = root / "call"
        self.cache = root / "cache"
        program = root / "bin" / "python3"
        program.parent.mkdir()
        program.write_text(WITNESS)
        program.chmod(0o700)
        self.source = root / "store" / "dirm"
        self.make_model(self.source, **model)
        self.store = ArchiveStore(root / "store", self.temp, [])
        self.environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "CALL": str(self.call)}

    def make_model(self, path: Path, **model: Any) -> None:
        manifest = {"model": {"modelName": "m", "handler": "h.py", "requirementsFile": "needs.txt", **model}}
        (path / "MAR-INF").mkdir(parents=True)
        (path / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
        (path / "needs.txt").write_text("brought==1\n")

    def open(self, name: str = "dirm") -> Archive:
        return self.store.open(name)

    def installation(
        self,
        archive: Archive,
        *,
        enabled: bool = True,
        runtime: str = "python3",
        use_venv: bool = False,
        temp_dir: Path | None = None,
        hidden: str | None = None,
        wheels: Path | None = None,
    ) -> Installation | None:
        dependencies = Dependencies(
            enabled=enabled,
            temp_dir=temp_dir or self.temp,
            environment=self.environment,
            hidden=None if hidden is None else re.compile(hidden),
            cache=self.cache,
            wheels=wheels,
        )
        return dependencies.installation(archive, runtime=runtime, use_venv=use_venv, python_path=("/a", "/b"))

    def refused(self, archive: Archive, message: str, **options: Any) -> ModelError:
        installation = self.installation(archive, **options)
        assert installation is not None
        with pytest.raises(ModelError) as caught:
            installation.run()
        assert caught.value.message == message
        return caught.value


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_nothing_to_do(house: House, tmp_path: Path) -> None:
    assert house.installation(house.open(), enabled=False) is None
    house.make_model(tmp_path / "store" / "plain", requirementsFile=None)
    assert house.installation(house.open("plain")) is None
    house.make_model(tmp_path / "store" / "empty", requirementsFile="")
    assert house.installation(house.open("empty")) is None
    (tmp_path / "store" / "bare").mkdir()
    bare = house.store.open("bare", model_name="bare", handler="h.py")
    assert house.installation(bare) is None
    assert house.installation(bare, enabled=False, runtime="python", use_venv=True) is not None


def test_the_command_beside_the_model(house: House) -> None:
    archive = house.open()
    installation = house.installation(archive)
    assert installation is not None
    assert installation.run() == "", "any interpreter will do"
    root = archive.directory.parent
    cwd, python_path, temporary, names, *arguments = house.call.read_text().splitlines()
    assert cwd in (str(archive.directory), str(house.source.resolve()))
    assert python_path == "/a:/b"
    assert Path(temporary) == root.with_name(f"{root.name}.install")
    assert {"CALL", "PATH", "PYTHONPATH"} <= set(names.split())
    requirements = str(archive.directory / "needs.txt")
    (contents,) = house.cache.glob("*/contents")
    assert arguments == ["-m", "pip", "install", "-U", "-t", str(contents), "-r", requirements]
    assert {path.name: path.readlink() for path in root.iterdir() if path != archive.directory} == {
        "brought": contents / "brought"
    }, "what is installed is linked to, but for compiled modules"
    assert installation.notices == [Notice("INFO", "wlm.ModelManager", "Installed custom pip packages for model m")]
    assert list(root.parent.iterdir()) == [root], "temporary files are gone"


def test_hidden_names_are_hidden_from_pip(house: House) -> None:
    house.environment |= {"SECRET_TOKEN": "x", "SECRET": "y", "TOKEN_SECRET": "z"}
    installation = house.installation(house.open(), hidden="SECRET.*|PYTHONPATH")
    assert installation is not None
    installation.run()
    names = house.call.read_text().splitlines()[3].split()
    assert "TOKEN_SECRET" in names
    assert not {"SECRET_TOKEN", "SECRET", "PYTHONPATH"} & set(names)


def test_the_answer_to_a_failure_tells_the_last_lines(house: House) -> None:
    house.environment["FAIL"] = "first\\n" + "noise\\n" * 30 + "ERROR: the reason\\n\\nhint\\n"
    archive = house.open()
    error = house.refused(archive, "Custom pip package installation failed for model m")
    assert error.status == 400
    certificate = error.certificate
    assert certificate is not None
    assert (certificate.cause, certificate.detail, certificate.exit_code) == (Cause.DEPENDENCY, "the reason", 7)
    assert certificate.last_output == (*["noise"] * 18, "ERROR: the reason", "hint")
    archive.remove()
    assert list((house.temp / "models").iterdir()) == []


def test_the_log_tells_everything(house: House) -> None:
    house.environment["FAIL"] = "first\\n" + "noise\\n" * 30
    installation = house.installation(house.open())
    assert installation is not None
    with pytest.raises(ModelError):
        installation.run()
    (notice,) = installation.notices
    assert (notice.level, notice.logger) == ("ERROR", "wlm.ModelManager")
    heading, first, *_ = notice.message.splitlines()
    assert (heading, first) == ("Custom pip package installation failed for model m:", "first")


@pytest.mark.parametrize("name", ["../needs.txt", "a/../../needs.txt", "/etc/needs.txt"])
def test_a_requirements_file_elsewhere(tmp_path: Path, name: str) -> None:
    house = House(tmp_path, requirementsFile=name)
    error = house.refused(house.open(), "Custom pip package installation failed for model m")
    assert error.certificate is not None
    assert error.certificate.detail == f"the requirements file {name} is not in the model directory"
    assert not house.call.exists()


def test_a_target_outside_of_the_temporary_directory(house: House) -> None:
    archive = house.open()
    message = f"Invalid 3rd party package installation path {archive.directory.parent}"
    # A path that only begins with the same characters is another place.
    house.refused(archive, message, temp_dir=house.temp / "models" / archive.directory.parent.name[:-1])
    assert not house.call.exists()


def test_links_on_the_way_to_the_target_count(house: House) -> None:
    (house.root / "elsewhere").mkdir()
    house.temp.mkdir()
    (house.temp / "models").symlink_to(house.root / "elsewhere")
    archive = house.open()
    house.refused(archive, f"Invalid 3rd party package installation path {archive.directory.parent}")
    (house.root / "other").symlink_to(house.temp)
    (house.temp / "models").unlink()
    archive = ArchiveStore(house.root / "store", house.root / "other", []).open("dirm")
    installation = house.installation(archive)
    assert installation is not None
    assert installation.run() == ""


def test_a_virtual_environment_never_lands_in_a_directory_of_that_name(house: House) -> None:
    house.make_model(house.root / "store" / "venv")
    archive = house.open("venv")
    message = f"Invalid python venv path for model m: {archive.directory}"
    house.refused(archive, message, runtime="python", use_venv=True)
    assert {path.name for path in (house.root / "store" / "venv").iterdir()} == {"MAR-INF", "needs.txt"}


def test_a_virtual_environment_that_cannot_be_made(house: House) -> None:
    archive = house.open()
    (archive.directory.parent / "venv").write_text("a file in its place")
    installation = house.installation(archive, runtime="python", use_venv=True)
    assert installation is not None
    with pytest.raises(ModelError) as caught:
        installation.run()
    assert caught.value.message == "Virtual environment creation failed for model m"
    heading = f"Virtual environment creation for model m at {archive.directory.parent / 'venv'} failed:"
    assert installation.notices[0].message.startswith(f"{heading}\n")
    assert not house.call.exists()


def test_packages_of_the_server_are_inherited(tmp_path: Path) -> None:
    venv, parent, editable = tmp_path / "venv", tmp_path / "p\u00e9re's", tmp_path / "editable"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    for folder in (parent, editable):
        folder.mkdir()
    (parent / "both.py").write_text("")
    (parent / "one.py").write_text("")
    (parent / "link.pth").write_text(f"{editable}\n")
    (editable / "linked.py").write_text("")
    own = Path(sysconfig.get_path("purelib", "venv", {"base": str(venv), "platbase": str(venv)}))
    (own / "both.py").write_text("")
    inherit_packages(venv, [str(parent)])
    source = "import both, one, linked; print(both.__file__, one.__file__, linked.__file__, sep='\\n')"
    found = subprocess.run([str(venv / "bin" / "python"), "-c", source], capture_output=True, check=True)
    assert [Path(line).parent for line in found.stdout.decode().splitlines()] == [own, parent, editable]


def calls(house: House) -> int:
    return len(Path(f"{house.call}.count").read_text().splitlines())


def run(house: House, archive: Archive, **options: Any) -> list[str]:
    """Install; returns what the log says."""
    installation = house.installation(archive, **options)
    assert installation is not None
    installation.run()
    return [notice.message for notice in installation.notices]


def test_the_same_requirements_are_installed_once(house: House) -> None:
    run(house, house.open())
    house.make_model(house.root / "store" / "other")
    other = house.open("other")
    first, second = run(house, other)
    (contents,) = house.cache.glob("*/contents")
    assert first == f"Packages for model m have been installed before: {contents}"
    assert second == "Installed custom pip packages for model m"
    assert (other.directory.parent / "brought").resolve() == contents / "brought"
    assert calls(house) == 1


def test_other_requirements_are_another_environment(house: House) -> None:
    run(house, house.open())
    house.source.joinpath("needs.txt").write_text("brought==2\n")
    run(house, house.open())
    house.environment["PIP_INDEX_URL"] = "https://elsewhere"
    run(house, house.open())
    assert calls(house) == len(list(house.cache.glob("*/contents"))) == 3


def test_a_failure_leaves_nothing_that_the_next_one_would_use(house: House) -> None:
    house.environment["FAIL"] = "ERROR: the network"
    house.refused(house.open(), "Custom pip package installation failed for model m")
    assert list(house.cache.glob("*/contents")) == []
    del house.environment["FAIL"]
    run(house, house.open())
    assert calls(house) == 2


def test_what_the_model_has_under_the_same_name_yields(house: House) -> None:
    archive = house.open()
    (archive.directory.parent / "brought").mkdir()
    (archive.directory.parent / "brought" / "old.py").touch()
    run(house, archive)
    assert (archive.directory.parent / "brought").is_symlink()


def test_an_installation_that_leads_back_to_the_model_is_its_own(house: House) -> None:
    house.source.joinpath("needs.txt").write_text("-e .\n")
    archive = house.open()
    run(house, archive)
    assert (archive.directory.parent / "brought").is_dir()
    assert not (archive.directory.parent / "brought").is_symlink()
    assert not house.cache.exists()


def test_a_folder_of_wheels_is_the_only_source(house: House, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    house.environment |= {"PIP_INDEX_URL": "https://elsewhere"}
    run(house, house.open(), wheels=wheels, hidden="PIP_NO_INDEX|PIP_FIND_LINKS")
    assert {"PIP_NO_INDEX", "PIP_FIND_LINKS"} <= set(house.call.read_text().splitlines()[3].split())
    (wheels / "brought-1-py3-none-any.whl").touch()
    run(house, house.open(), wheels=wheels)
    assert calls(house) == 2, "another choice of wheels is another environment"


def test_the_wheel_of_a_model_counts_by_what_is_in_it(house: House) -> None:
    house.source.joinpath("needs.txt").write_text("./own-1-py3-none-any.whl\n")
    wheel = house.source / "own-1-py3-none-any.whl"
    wheel.write_text("one")
    run(house, house.open())
    wheel.write_text("two")
    run(house, house.open())
    wheel.write_text("one")
    run(house, house.open())
    assert calls(house) == 2


def test_stop_before_the_start(house: House) -> None:
    installation = house.installation(house.open())
    assert installation is not None
    installation.stop()
    with pytest.raises(Stopped):
        installation.run()
    assert not house.call.exists()


def test_a_model_directory_that_has_gone(house: House) -> None:
    archive = house.open()
    archive.remove()
    error = house.refused(archive, "Custom pip package installation failed for model m")
    assert error.certificate is not None and "No such file or directory" in error.certificate.detail
