"""What makes an archive, where it is unpacked, and what is refused."""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from contract.rest_server import error, make
from contract.server import ContractServer
from harness.archives import NOOP, pack
from harness.server import eventually
from harness.wheels import make_wheel
from model_archiver import ModelArchiver, ModelArchiverConfig

check = pytest.mark.check
fixed = pytest.mark.fixed
CONFIG = {"install_py_dep_per_model": "true"}

# Tells what its context says of the archive.
TELLER = """
import os


def handle(data, context):
    if data is None:
        return None
    name = context.manifest["model"]["modelName"] if context.manifest else None
    place = context.system_properties["model_dir"]
    return [{"manifest": name, "name": context.model_name, "model_dir": place, "cwd": os.getcwd()}] * len(data)
"""


def manifest(name: str | None, **members: Any) -> str:
    """A manifest with the handler below."""
    return json.dumps({"runtime": "python", "model": {"modelName": name, "handler": "h.py"}, **members})


def write_mar(path: Path, members: Mapping[str, str]) -> Path:
    """A zip with these files."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def write_tar(path: Path, members: Mapping[str, str]) -> Path:
    """A compressed tar with these files."""
    with tarfile.open(path, "w:gz") as archive:
        for name, text in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(text)
            archive.addfile(header, io.BytesIO(text.encode()))
    return path


def model(name: str, root: str = "") -> dict[str, str]:
    """The files of a model below a root."""
    return {f"{root}h.py": NOOP, f"{root}MAR-INF/MANIFEST.json": manifest(name)}


def directories(server: ContractServer) -> list[Path]:
    """What lies in the extraction root."""
    return sorted((server.temp / "models").glob("*"))


@check("archive", 3)
def test_an_empty_version(server: ContractServer, tmp_path: Path) -> None:
    """It is not in the manifest, so that the server has its own."""
    pack(server.store, "unversioned", NOOP, version="")
    assert server.register("unversioned.mar", workers=0).status_code == 200
    assert server.describe("unversioned")["modelVersion"] == "1.0"
    server.delete("unversioned")


@check("archive", 4)
@pytest.mark.parametrize(
    ("form", "url"),
    [
        ("default", "formed.mar"),
        ("zip-store", "formed.mar"),
        ("tgz", "formed.tar.gz"),
        ("no-archive", "formed"),
    ],
)
def test_every_form_of_the_archiver_is_served(server: ContractServer, tmp_path: Path, form: str, url: str) -> None:
    """With the same handler."""
    (tmp_path / "h.py").write_text(NOOP)
    archive = ModelArchiverConfig(
        "formed", str(tmp_path / "h.py"), "1.0", export_path=str(server.store), archive_format=form, force=True
    )
    ModelArchiver.generate_model_archive(archive)
    assert server.register(url).status_code == 200
    assert server.predict("formed").text == "ok"
    server.delete("formed")


@check("archive", 8)
@pytest.mark.parametrize(
    ("document", "type_", "message"),
    [
        (None, "InvalidModelException", "Model name is not defined."),
        ("{}", "InvalidModelException", "Model name is not defined."),
        (manifest(""), "InvalidModelException", "Model name is not defined."),
        ("[]", "InvalidModelException", "Failed to parse signature.json."),
        ("{no json", "InvalidModelException", "Failed to parse signature.json."),
        (manifest("m", runtime="ruby"), "InvalidModelException", "Runtime is not defined or invalid."),
    ],
)
def test_manifests_that_are_refused(server: ContractServer, document: str | None, type_: str, message: str) -> None:
    """With what is wrong with them."""
    members = {"h.py": NOOP, **({} if document is None else {"MAR-INF/MANIFEST.json": document})}
    write_mar(server.store / "refused.mar", members)
    assert error(server.register("refused.mar", workers=0)) == (400, type_, message)


@fixed("broken manifests")
@pytest.mark.parametrize("document", ['{"model": null}', " \n"])
def test_manifests_without_a_model(server: ContractServer, document: str) -> None:
    """An error of the archive, not of the server."""
    write_mar(server.store / "empty.mar", {"h.py": NOOP, "MAR-INF/MANIFEST.json": document})
    message = "Missing Model entry in manifest file."
    assert error(server.register("empty.mar", workers=0)) == (400, "InvalidModelException", message)


@check("archive", 8)
def test_what_a_registration_may_replace(server: ContractServer) -> None:
    """Name and runtime; one that is not known is refused before anything is opened."""
    write_mar(server.store / "odd.mar", {"h.py": NOOP, "MAR-INF/MANIFEST.json": manifest(None, runtime="ruby")})
    answer = server.register("odd.mar", workers=0, model_name="named", runtime="python")
    assert answer.status_code == 200, answer.text
    assert server.describe("named")["runtime"] == "python"
    conflict = error(server.register("odd.mar", workers=0, model_name="named", runtime="python"))
    assert conflict == (409, "ConflictStatusException", "Model version 1.0 is already registered for model named")
    server.delete("named")
    refusal = error(server.register("none.mar", workers=0, runtime="ruby"))
    assert refusal == (400, "BadRequestException", "Invalid RuntimeType value: ruby")


@check("archive", 11)
def test_every_model_has_one_directory(server: ContractServer) -> None:
    """It has a random name, and goes with the model."""
    before = directories(server)  # of models that are on their way out, perhaps
    for name in ("first", "second"):
        pack(server.store, name, NOOP)
        assert server.register(f"{name}.mar", workers=0).status_code == 200
    made = set(directories(server)) - set(before)
    assert len(made) == 2
    assert all(re.fullmatch("[0-9a-f]{32}", path.name) for path in made)
    for name in ("first", "second"):
        server.delete(name)
    eventually(lambda: not made & set(directories(server)))


@fixed("extracted leftovers")
def test_nothing_stays_of_what_was_refused(server: ContractServer) -> None:
    """Whenever that was noticed."""
    before = directories(server)
    pack(server.store, "kept", NOOP)
    write_mar(server.store / "slip.mar", {"../../x": "", **model("slip")})
    write_mar(server.store / "bad.mar", {"h.py": NOOP, "MAR-INF/MANIFEST.json": "{no json"})
    assert server.register("kept.mar", workers=0).status_code == 200
    refused = [server.register(url, workers=0).status_code for url in ("kept.mar", "slip.mar", "bad.mar")]
    assert refused == [409, 500, 400]
    server.delete("kept")
    eventually(lambda: not set(directories(server)) - set(before))


@check("archive", 12)
def test_a_directory_is_used_where_it_is(server: ContractServer, tmp_path: Path) -> None:
    """Through a link; the packages it needs lie beside the link, and nothing is written into it."""
    wheels = make_wheel(tmp_path / "wheels", "linked").parent
    source = tmp_path / "source"
    with zipfile.ZipFile(packed_with(tmp_path, wheels)) as archive:
        archive.extractall(source)
    content = sorted(path.relative_to(source) for path in source.rglob("*"))
    assert server.register(str(source)).status_code == 200
    place = Path(server.predict("direct").json()["model_dir"])
    assert place.is_symlink()
    assert place.resolve() == source
    assert place.parent.parent == server.temp / "models"
    assert (place.parent / "linked").is_dir()
    server.delete("direct")
    eventually(lambda: not place.parent.exists())
    made = {"__pycache__"}  # by the interpreter
    left = sorted(path.relative_to(source) for path in source.rglob("*") if not made & set(path.parts))
    assert left == content


def packed_with(directory: Path, wheels: Path) -> Path:
    """An archive that needs a package."""
    (directory / "out").mkdir()
    requirements = f"--no-index\n-f {wheels}\nlinked\n"
    return directory / "out" / pack(directory / "out", "direct", TELLER, requirements=requirements)


@check("archive", 14)
@pytest.mark.parametrize("root", ["tarball/", "./"])
def test_tarballs_with_one_root(server: ContractServer, root: str) -> None:
    """Which is left out."""
    write_tar(server.store / "tarball.tar.gz", model("tarball", root))
    assert server.register("tarball.tar.gz").status_code == 200
    assert server.predict("tarball").text == "ok"
    server.delete("tarball")


@check("archive", 14)
def test_a_tarball_without_a_root(server: ContractServer) -> None:
    """Its manifest is not where it should be."""
    write_tar(server.store / "flat.tar.gz", model("flat"))
    answer = error(server.register("flat.tar.gz", workers=0))
    assert answer == (400, "InvalidModelException", "Model name is not defined.")


@check("archive", 15)
@pytest.mark.parametrize("name", ["slip.mar", "slip.tar.gz"])
def test_members_do_not_leave_the_directory(server: ContractServer, name: str) -> None:
    """Not by going up."""
    write = write_mar if name.endswith(".mar") else write_tar
    write(server.store / name, {"r/../../../fallen": "", **model("slip", "" if name.endswith(".mar") else "r/")})
    answer = error(server.register(name, workers=0))
    assert answer == (500, "InternalServerException", f"Failed to save model: {name}")
    assert not list(server.directory.rglob("fallen"))


@check("archive", 15)
def test_an_absolute_member_is_a_relative_one(server: ContractServer, tmp_path: Path) -> None:
    """Below the model's directory."""
    write_mar(server.store / "absolute.mar", {f"{tmp_path}/here": "", **model("absolute")})
    assert server.register("absolute.mar", workers=0).status_code == 200
    assert not (tmp_path / "here").exists()
    server.delete("absolute")


@check("archive", 16)
def test_names_of_start_up_models(tmp_path: Path) -> None:
    """Where neither the archive nor the operator names them; what cannot be opened is left out."""
    names = ["no-name.v1.mar", "absent.mar", "tarry.tar.gz", "skipme.tgz", "dirm"]
    server = make(tmp_path, config={"load_models": ",".join(names), "default_service_handler": "h.py:handle"})
    write_mar(server.store / "no-name.v1.mar", {"h.py": NOOP})
    for name in ("tarry.tar.gz", "skipme.tgz"):
        write_tar(server.store / name, {"r/h.py": NOOP})
    (server.store / "dirm").mkdir()
    (server.store / "dirm" / "h.py").write_text(NOOP)
    with server:
        listed = server.request("GET", "/models", "Management").json()["models"]
        assert [model["modelName"] for model in listed] == ["dirm", "no_name_v1", "skipme_tgz", "tarry_tar_gz"]
        assert "Failed to load model: absent.mar" in server.output


@check("archive", 17)
def test_numbers_of_workers_in_an_archive(server: ContractServer) -> None:
    """They beat the caller's."""
    pack(server.store, "counted", NOOP, config="minWorkers: 1\nmaxWorkers: 3\n")
    assert server.register("counted.mar", workers=2).status_code == 200
    described = server.describe("counted")
    assert (described["minWorkers"], described["maxWorkers"], len(described["workers"])) == (1, 3, 1)
    server.delete("counted")


@check("archive", 20)
def test_two_names(server: ContractServer) -> None:
    """The archive's own, and the one the caller gave the model."""
    pack(server.store, "inner", TELLER)
    assert server.register("inner.mar", model_name="outer").status_code == 200
    told = server.predict("outer").json()
    assert (told["manifest"], told["name"]) == ("inner", "outer")
    server.delete("outer")
