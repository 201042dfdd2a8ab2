"""From the url of a registration to an opened archive: every way to find it, every refusal, and what stays on disk."""

from __future__ import annotations

import json
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from modelserver.archives.archive import Archive
from modelserver.archives.store import ArchiveStore
from modelserver.errors import (
    BadRequest,
    ConfigurationError,
    DownloadFailed,
    InternalError,
    InvalidModel,
    ModelError,
    ModelNotFound,
    ServerError,
)

ALLOWED = ("file://.*|http(s)?://.*",)


def manifest(name: str | None = "m", **model: Any) -> str:
    return json.dumps({"model": {"modelName": name, "handler": "h.py", **model}})


def make_mar(path: Path, document: str | None = None, **files: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("h.py", "handler")
        for name, content in files.items():
            archive.writestr(name, content)
        if document is not None:
            archive.writestr("MAR-INF/MANIFEST.json", document)
    return path


def make_directory(path: Path, document: str | None = None) -> Path:
    path.mkdir(parents=True)
    (path / "h.py").write_text("handler")
    if document is not None:
        (path / "MAR-INF").mkdir()
        (path / "MAR-INF" / "MANIFEST.json").write_text(document)
    return path


class House:
    """A store with one archive in it, and the places it may write to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.models = root / "temp" / "models"
        self.path = root / "store"
        self.path.mkdir()
        make_mar(self.path / "m.mar", manifest())
        self.store = ArchiveStore(self.path, root / "temp", ALLOWED)

    def made(self) -> list[Path]:
        return sorted(self.models.iterdir()) if self.models.exists() else []

    def stored(self) -> set[str]:
        return {path.name for path in self.path.iterdir()}

    def refused(self, kind: type[ServerError], message: str, url: str, **given: Any) -> None:
        before = self.made(), self.stored()
        with pytest.raises(ServerError) as caught:
            self.store.open(url, **given)
        assert (type(caught.value), caught.value.message) == (kind, message)
        assert (self.made(), self.stored()) == before


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_an_archive_of_the_store(house: House) -> None:
    archive = house.store.open("m.mar")
    assert archive.url == "m.mar"
    assert (archive.model_name, archive.version, archive.handler, archive.runtime) == ("m", "1.0", "h.py", "python")
    assert re.fullmatch("[0-9a-f]{32}", archive.directory.name)
    assert archive.directory.parent == house.models
    assert house.made() == [archive.directory]
    assert (archive.directory / "h.py").read_text() == "handler"
    assert archive.manifest is not None and archive.manifest.model_name == "m"
    assert (archive.config, archive.config_error, archive.downloaded) == ({}, None, None)
    assert archive.python_path == (str(archive.directory.resolve()),)


def test_remove_deletes_the_copy_only_and_may_be_repeated(house: House) -> None:
    archive = house.store.open("m.mar")
    other = house.store.open("m.mar")
    archive.remove()
    archive.remove()
    archive.remove_download()
    assert house.made() == [other.directory]
    assert house.stored() == {"m.mar"}


@pytest.mark.parametrize("url", ["sub/m.mar", "/any/dir/m.mar", "s3://bucket/m.mar"])
def test_directory_parts_are_dropped(house: House, url: str) -> None:
    assert house.store.open(url).url == url


def test_the_callers_words_beat_the_manifest(house: House) -> None:
    archive = house.store.open("m.mar", model_name="other", handler="sub/x:fn", runtime="python3", default_handler="d")
    assert (archive.model_name, archive.handler, archive.runtime) == ("other", "sub/x:fn", "python3")
    assert archive.manifest is not None and archive.manifest.model_name == "m"


def test_empty_words_count_as_not_given(house: House) -> None:
    archive = house.store.open("m.mar", model_name="", handler="", runtime="", default_handler="d", default_name="n")
    assert (archive.model_name, archive.handler, archive.runtime) == ("m", "h.py", "python")


def test_defaults_fill_what_nobody_says(house: House) -> None:
    make_mar(house.path / "bare.mar")
    archive = house.store.open("bare.mar", default_name="bare", default_handler="d.py")
    assert (archive.model_name, archive.handler, archive.version) == ("bare", "d.py", "1.0")
    assert archive.manifest is None
    assert house.store.open("bare.mar", model_name="x").handler == ""


def test_an_empty_version_stays_empty(house: House) -> None:
    make_mar(house.path / "v.mar", manifest(modelVersion=""))
    assert house.store.open("v.mar").version == ""


def test_the_configuration_of_the_archive(house: House) -> None:
    make_mar(house.path / "c.mar", manifest(configFile="c.yaml"), **{"c.yaml": "minWorkers: 2\nhandler: {a: 1}"})
    archive = house.store.open("c.mar")
    assert (archive.config, archive.config_error) == ({"minWorkers": 2, "handler": {"a": 1}}, None)
    make_mar(house.path / "broken.mar", manifest(configFile="c.yaml"), **{"c.yaml": "- 1"})
    archive = house.store.open("broken.mar")
    assert archive.config == {}
    assert archive.config_error == "Failed to parse model config file c.yaml: the top level is not a mapping"


def test_the_folder_of_a_handler_with_an_entry_goes_in_front(house: House) -> None:
    archive = house.store.open("m.mar", handler="sub/h.py:entry")
    real = archive.directory.resolve()
    assert archive.python_path == (str(real / "sub"), str(real))
    assert house.store.open("m.mar", handler="sub/h.py").python_path[0] != str(real / "sub")
    assert len(house.store.open("m.mar", handler="h:entry").python_path) == 1


def test_refusals_before_anything_is_opened(house: House) -> None:
    unset = ArchiveStore(None, house.root / "temp", ALLOWED)
    with pytest.raises(ModelNotFound, match=r"^Model store has not been configured\.$"):
        unset.open("m.mar")
    house.refused(ModelNotFound, "empty url", "")
    house.refused(ModelNotFound, "Relative path is not allowed in url: ../m.mar", "../m.mar")
    house.refused(ModelNotFound, "Relative path is not allowed in url: a..b.mar", "a..b.mar")
    house.refused(ModelNotFound, "Model not found at: nope.mar", "nope.mar")
    house.refused(BadRequest, "Invalid RuntimeType value: ruby", "nope.mar", runtime="ruby")
    house.refused(
        BadRequest,
        "Model name contains a slash or a control character: 'a/b'",
        "nope.mar",
        model_name="a/b",
    )


@pytest.mark.parametrize(
    "url", [".", "/", "./", "//", "ftp://h/x.mar", "/etc/passwd", "nul\0.mar", "x" * 5000, "a/" * 3000 + "b"]
)
def test_what_is_nowhere(house: House, url: str) -> None:
    house.refused(ModelNotFound, f"Model not found at: {url}", url)


@pytest.mark.parametrize("url", ["http://h/m.mar", "HTTPS://h/m.mar", "file:///m.mar"])
def test_urls_that_match_no_pattern(tmp_path: Path, url: str) -> None:
    House(tmp_path)
    store = ArchiveStore(tmp_path / "store", tmp_path / "temp", ["https://good/.*", "h"])
    with pytest.raises(ModelNotFound) as caught:
        store.open(url)
    assert caught.value.message == f"Given URL {url} does not match any allowed URL(s)"


def test_a_pattern_matches_as_a_whole_and_in_any_case(house: House) -> None:
    make_mar(house.root / "x.mar", manifest())
    url = f"FILE://{house.root}/x.mar"
    with pytest.raises(ModelNotFound):
        ArchiveStore(house.path, house.root / "temp", ["file://"]).open(url)
    assert ArchiveStore(house.path, house.root / "temp", ["nothing", "file://.*"]).open(url).downloaded is not None


def test_a_pattern_for_everything_leaves_names_of_the_store_alone(house: House) -> None:
    store = ArchiveStore(house.path, house.root / "temp", [".*"])
    assert store.open("m.mar").downloaded is None
    with pytest.raises(DownloadFailed, match=r"^Failed to download archive from: s3://bucket/x\.mar$"):
        store.open("s3://bucket/x.mar")


def test_a_broken_pattern_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="allowed_urls"):
        ArchiveStore(tmp_path, tmp_path, ["("])


@pytest.mark.parametrize(
    ("document", "kind", "message"),
    [
        (None, InvalidModel, "Model name is not defined."),
        ("{}", InvalidModel, "Model name is not defined."),
        (manifest(""), InvalidModel, "Model name is not defined."),
        (manifest(None), InvalidModel, "Model name is not defined."),
        ("[", InvalidModel, "Failed to parse signature.json."),
        ('{"model": null}', InvalidModel, "Missing Model entry in manifest file."),
        (
            '{"runtime": "ruby", "model": {"modelName": "m"}}',
            InvalidModel,
            "Runtime is not defined or invalid.",
        ),
        ('{"runtime": "LSP", "model": {"modelName": "m"}}', ModelError, "Unsupported runtime: LSP"),
        (
            manifest("a/b"),
            BadRequest,
            "Model name contains a slash or a control character: 'a/b'",
        ),
    ],
)
def test_refusals_after_unpacking_leave_nothing(
    house: House, document: str | None, kind: type[ServerError], message: str
) -> None:
    make_mar(house.path / "bad.mar", document)
    house.refused(kind, message, "bad.mar")


def test_a_runtime_given_by_the_caller_heals_an_unknown_one(house: House) -> None:
    make_mar(house.path / "r.mar", '{"runtime": "ruby", "model": {"modelName": "m"}}')
    assert house.store.open("r.mar", runtime="python3").runtime == "python3"
    house.refused(ModelError, "Unsupported runtime: LSP", "m.mar", runtime="LSP")


def test_broken_archives_leave_nothing(house: House) -> None:
    (house.path / "html.mar").write_text("<html>")
    house.refused(InvalidModel, "Failed to save model: html.mar (it is not a zip archive)", "html.mar")
    (house.path / "cut.mar").write_bytes((house.path / "m.mar").read_bytes()[:-30])
    house.refused(InternalError, "Failed to save model: cut.mar", "cut.mar")
    (house.path / "x.zip").write_bytes((house.path / "m.mar").read_bytes())
    house.refused(InternalError, "Failed to save model: x.zip (a zip archive must be named .mar)", "x.zip")
    make_mar(house.path / "slip.mar", manifest(), **{"../../evil": "x"})
    house.refused(InternalError, "Failed to save model: slip.mar", "slip.mar")
    assert not (house.root / "evil").exists() and not (house.root / "temp" / "evil").exists()


def test_an_unusable_temp_directory_is_an_error_of_the_server(house: House) -> None:
    (house.root / "file").write_text("")
    store = ArchiveStore(house.path, house.root / "file", ALLOWED)
    make_directory(house.root / "dir", manifest())
    for url in ("m.mar", str(house.root / "dir")):
        with pytest.raises(InternalError, match=r"^Failed to save model: "):
            store.open(url)


def test_a_link_that_cannot_be_made_leaves_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    source = str(make_directory(house.root / "dir", manifest()))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("no links on this file system")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    house.refused(InternalError, f"Failed to save model: {source}", source)


def opened_directory(house: House, archive: Archive) -> Path:
    """Checks what every directory model has in common; returns what the link points to."""
    assert archive.directory.is_symlink()
    assert archive.directory.parent.parent == house.models
    assert re.fullmatch("[0-9a-f]{32}", archive.directory.parent.name)
    assert archive.python_path == (str(archive.directory.resolve()), str(archive.directory.parent))
    return archive.directory.readlink()


def test_a_directory_is_used_in_place(house: House) -> None:
    source = make_directory(house.root / "elsewhere" / "dirm", manifest())
    for url in (str(source), f"{source}/"):
        archive = house.store.open(url)
        assert opened_directory(house, archive) == source
        assert archive.directory.name == "dirm"
        archive.remove()
        archive.remove()
    assert house.made() == []
    assert (source / "h.py").exists()


def test_a_directory_of_the_store_comes_last(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    in_store = make_directory(house.path / "dirm", manifest("of-store"))
    monkeypatch.chdir(house.root)
    assert opened_directory(house, house.store.open("dirm")) == in_store
    assert opened_directory(house, house.store.open("x/dirm")) == in_store
    in_cwd = make_directory(house.root / "dirm", manifest("of-cwd"))
    archive = house.store.open("dirm")
    assert (archive.model_name, opened_directory(house, archive)) == ("of-cwd", in_cwd)


def test_a_file_of_the_store_comes_before_a_directory(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    make_directory(house.root / "m.mar", manifest("directory"))
    monkeypatch.chdir(house.root)
    assert house.store.open("m.mar").model_name == "m"


def test_the_only_subdirectory_stands_in_for_its_parent(house: House) -> None:
    inner = make_directory(house.root / "outer" / "inner", manifest())
    archive = house.store.open(str(house.root / "outer"))
    assert opened_directory(house, archive) == inner
    (house.root / "outer" / ".hidden").mkdir()
    house.store.open(str(house.root / "outer"), handler="h.py", model_name="m")
    archive.remove()
    assert inner.exists()


def test_a_directory_with_nothing_but_a_manifest_is_itself(house: House) -> None:
    (house.root / "d" / "MAR-INF").mkdir(parents=True)
    (house.root / "d" / "MAR-INF" / "MANIFEST.json").write_text(manifest(handler="base_handler"))
    assert opened_directory(house, house.store.open(str(house.root / "d"))) == house.root / "d"


def test_a_directory_without_manifest_needs_a_handler(house: House) -> None:
    source = str(make_directory(house.root / "d"))
    house.refused(
        InvalidModel,
        f"Handler is not defined, and there is no manifest in the model directory: {source}",
        source,
        model_name="d",
    )
    assert house.store.open(source, model_name="d", handler="h.py").handler == "h.py"
    assert house.store.open(source, model_name="d", default_handler="h.py").handler == "h.py"


def test_several_threads_open_the_same_archive(house: House) -> None:
    with ThreadPoolExecutor(8) as threads:
        archives = list(threads.map(house.store.open, ["m.mar"] * 24))
    assert len({archive.directory for archive in archives}) == 24
    assert all((archive.directory / "h.py").exists() for archive in archives)
    for archive in archives:
        archive.remove()
    assert house.made() == []
