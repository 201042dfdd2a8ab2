"""Archives of every form are equal, by start-up, registration and URL; what was unpacked goes, what was there stays."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.origin import Origin
from harness.server import ServerProcess, eventually
from model_archiver import ModelArchiver, ModelArchiverConfig

# Reads a file in a folder of the archive: by the working directory, and by the model directory it is told.
HANDLER = """
from pathlib import Path


def handle(data, context):
    if data is None:
        return None
    told = Path(context.system_properties["model_dir"], "data", "sub", "text").read_text()
    return [Path("data/sub/text").read_text() + told] * len(data)
"""
ANSWER = "deepdeep"
FORMS = {
    "mar": ("default", ".mar"),
    "stored": ("zip-store", ".mar"),
    "tar": ("tgz", ".tar.gz"),
    "folder": ("no-archive", ""),
}
STARTED = ["bare", "folder", "inner", "mar", "named", "short", "stored", "tar"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifacts of a model."""
    directory = tmp_path_factory.mktemp("source")
    (directory / "extra" / "data" / "sub").mkdir(parents=True)
    (directory / "extra" / "data" / "sub" / "text").write_text("deep")
    (directory / "h.py").write_text(HANDLER)
    return directory


def pack(source: Path, name: str, form: str, output: Path) -> None:
    ModelArchiver.generate_model_archive(
        ModelArchiverConfig(
            name,
            str(source / "h.py"),
            "1.0",
            extra_files=str(source / "extra"),
            export_path=str(output),
            archive_format=form,
        )
    )


def fill(store: Path, source: Path) -> None:
    """Every form of the archiver, other names of tar archives, and directories that it does not make."""
    for name, (form, _) in FORMS.items():
        pack(source, name, form, store)
    for name, file in (("short", "short.tgz"), ("named", "named.model")):
        pack(source, name, "tgz", store)
        (store / f"{name}.tar.gz").rename(store / file)
    pack(source, "inner", "no-archive", store / "wrapped")
    shutil.copytree(store / "folder", store / "bare")
    shutil.rmtree(store / "bare" / "MAR-INF")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Iterator[ServerProcess]:
    """Has loaded all that its store holds."""
    config = {"default_service_handler": "h.py:handle", "default_workers_per_model": 1, "load_models": "all"}
    server = ServerProcess(tmp_path_factory.mktemp("forms"), config=config)
    fill(server.store, source)
    with server:
        yield server


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


def content(directory: Path) -> list[Path]:
    """Everything below, but for what the interpreter makes."""
    found = (path.relative_to(directory) for path in directory.rglob("*"))
    return sorted(path for path in found if "__pycache__" not in path.parts)


@pytest.mark.parametrize("model", STARTED)
def test_every_form_is_loaded_at_the_start(server: ServerProcess, model: str) -> None:
    answer = server.predict(model)
    assert (answer.status_code, answer.text) == (200, ANSWER)


@pytest.mark.parametrize(
    "url", ["mar.mar", "stored.mar", "tar.tar.gz", "short.tgz", "named.model", "folder", "wrapped"]
)
def test_every_form_is_registered(server: ServerProcess, url: str) -> None:
    before = content(server.store)
    unpacked = set((server.temp / "models").iterdir())
    assert server.register(url, model_name="again").status_code == 200
    assert server.predict("again").text == ANSWER
    made = set((server.temp / "models").iterdir()) - unpacked
    assert len(made) == 1
    assert server.request("DELETE", "/models/again", "Management").status_code == 200
    eventually(lambda: not any(path.exists() for path in made))
    assert content(server.store) == before


def test_a_directory_without_a_manifest_is_registered_with_name_and_handler(
    server: ServerProcess, source: Path
) -> None:
    answer = server.register(str(server.store / "bare"), model_name="told", handler="h.py")
    assert answer.status_code == 200, answer.text
    assert server.predict("told").text == ANSWER
    server.request("DELETE", "/models/told", "Management")


@pytest.mark.parametrize("scheme", ["http", "file"])
@pytest.mark.parametrize("name", ["mar", "stored", "tar"])
def test_files_come_from_elsewhere(
    server: ServerProcess, source: Path, origin: Origin, tmp_path: Path, scheme: str, name: str
) -> None:
    form, suffix = FORMS[name]
    pack(source, "remote", form, tmp_path)
    path = tmp_path / f"remote{suffix}"
    url = origin.give(f"/{path.name}", path.read_bytes()) if scheme == "http" else path.as_uri()
    assert server.register(url).status_code == 200
    assert server.predict("remote").text == ANSWER
    server.request("DELETE", "/models/remote", "Management")
    eventually(lambda: not (server.store / path.name).exists())
    assert path.exists(), "what was copied stays where it was"


def test_the_end_leaves_the_store_and_nothing_unpacked(tmp_path: Path, source: Path) -> None:
    server = ServerProcess(tmp_path, models=["mar.mar", "tar.tar.gz", "folder"])
    fill(server.store, source)
    before = content(server.store)
    with server:
        assert [server.predict(model).text for model in ("mar", "tar", "folder")] == [ANSWER] * 3
        assert len(list((server.temp / "models").iterdir())) == 3
        assert server.stop() == 0
    assert list((server.temp / "models").glob("*")) == []
    assert content(server.store) == before


def test_what_the_archiver_packs_is_the_same_in_every_form(tmp_path: Path, source: Path) -> None:
    for name, (form, _) in FORMS.items():
        pack(source, name, form, tmp_path)
    with zipfile.ZipFile(tmp_path / "mar.mar") as mar, zipfile.ZipFile(tmp_path / "stored.mar") as stored:
        names = mar.namelist()
        assert stored.namelist() == names
    with tarfile.open(tmp_path / "tar.tar.gz") as tar:
        assert tar.getnames() == [f"tar/{name}" for name in names]
    assert {path.as_posix() for path in content(tmp_path / "folder")} >= set(names)
