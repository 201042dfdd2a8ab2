"""Archives from http and file urls: where they are stored, what is refused, what never stays."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import pathname2url

import pytest

from model_archiver import ModelArchiver, ModelArchiverConfig
from modelserver.archives.download import Downloads
from modelserver.archives.limits import Limits
from modelserver.archives.store import ArchiveStore
from modelserver.archives.urls import AllowedUrls
from modelserver.errors import DownloadFailed, InternalError, InvalidModel

ANY = AllowedUrls([".*"])


class Origin(ThreadingHTTPServer):
    """A web server whose path says how it answers."""

    def __init__(self, archive: bytes) -> None:
        self.archive = archive
        self.release = threading.Event()  # answers of /slow and /silent wait for it
        self.asked = threading.Event()  # set when /slow or /silent was requested
        super().__init__(("127.0.0.1", 0), _Answer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    server: Origin

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        if kind == "missing":
            self.send_error(404)
        elif kind == "redirect":
            self._redirect("/ok/target.mar")
        elif kind == "to-file":
            self._redirect("file:///etc/hostname")
        elif kind == "to-ftp":
            self._redirect("ftp://127.0.0.1:1/x.mar")
        elif kind == "silent":
            self.server.asked.set()
            self.server.release.wait()
        else:
            self._send(kind)

    def _redirect(self, location: str) -> None:
        self.send_response(302)
        self.send_header("Location", location)
        self.end_headers()

    def _send(self, kind: str) -> None:
        body = b"no archive" if kind == "garbage" else self.server.archive
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + (10 if kind == "short" else 0)))
        self.end_headers()
        self.wfile.write(body[:20])
        if kind == "slow":
            self.server.asked.set()
            self.server.release.wait()
        self.wfile.write(body[20:])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("packed")
    (directory / "h.py").write_text("handler")
    ModelArchiver.generate_model_archive(
        ModelArchiverConfig("m", str(directory / "h.py"), "1.0", export_path=str(directory))
    )
    return directory / "m.mar"


@pytest.fixture
def origin(archive: Path) -> Iterator[Origin]:
    with Origin(archive.read_bytes()) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def store(tmp_path: Path) -> ArchiveStore:
    (tmp_path / "store").mkdir()
    return ArchiveStore(tmp_path / "store", tmp_path / "temp", ["file://.*|http(s)?://.*"])


def stored(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "store").iterdir()}


def test_a_downloaded_archive_stays_in_the_store_until_it_is_removed(
    tmp_path: Path, origin: Origin, store: ArchiveStore
) -> None:
    url = f"{origin.url}/ok/a%20b.mar?signature=x/y.mar"
    opened = store.open(url)
    assert (opened.url, opened.model_name) == (url, "m")
    assert opened.downloaded == tmp_path / "store" / "a%20b.mar"
    assert stored(tmp_path) == {"a%20b.mar"}
    with pytest.raises(InternalError) as caught:
        store.open(url)
    assert caught.value.message == "Model file already exists a%20b.mar"
    opened.remove()
    assert stored(tmp_path) == {"a%20b.mar"}
    opened.remove_download()
    opened.remove_download()
    assert stored(tmp_path) == set()


def test_a_redirect_keeps_the_name_of_the_url(tmp_path: Path, origin: Origin, store: ArchiveStore) -> None:
    store.open(f"{origin.url}/redirect/r.mar")
    assert stored(tmp_path) == {"r.mar"}


def test_a_file_url_is_copied(tmp_path: Path, archive: Path, store: ArchiveStore) -> None:
    source = tmp_path / "with blank.mar"
    source.write_bytes(archive.read_bytes())
    opened = store.open(f"file://{pathname2url(str(source))}")
    opened.remove_download()
    assert source.exists()


@pytest.mark.parametrize("path", ["missing/m.mar", "short/m.mar", "to-file/m.mar", "to-ftp/m.mar", ""])
def test_failed_transfers_leave_nothing(tmp_path: Path, origin: Origin, store: ArchiveStore, path: str) -> None:
    url = f"{origin.url}/{path}"
    with pytest.raises(DownloadFailed) as caught:
        store.open(url)
    assert caught.value.message == f"Failed to download archive from: {url}"
    assert stored(tmp_path) == set()


@pytest.mark.parametrize(
    "url",
    [
        "file:///no/such/file.mar",
        "file:///etc",
        "http://127.0.0.1:1/x.mar",
        "http://[/x.mar",
        "http://h:x/x.mar",
        "http://127.0.0.1:1/a b.mar",
        "file:///nul\0.mar",
        f"file:///{'x' * 5000}.mar",
    ],
)
def test_unusable_urls(tmp_path: Path, store: ArchiveStore, url: str) -> None:
    with pytest.raises(DownloadFailed):
        store.open(url)
    assert stored(tmp_path) == set()


def test_a_download_that_turns_out_useless_is_removed(tmp_path: Path, origin: Origin, store: ArchiveStore) -> None:
    with pytest.raises(InvalidModel):
        store.open(f"{origin.url}/garbage/m.mar")
    assert stored(tmp_path) == set()
    assert list((tmp_path / "temp" / "models").iterdir()) == []


def test_a_download_that_cannot_be_removed_does_not_hide_anything(
    tmp_path: Path, origin: Origin, store: ArchiveStore
) -> None:
    opened = store.open(f"{origin.url}/ok/m.mar")
    (tmp_path / "store" / "m.mar").unlink()
    (tmp_path / "store" / "m.mar").mkdir()
    opened.remove_download()
    assert stored(tmp_path) == {"m.mar"}


def test_a_missing_store_is_a_failed_download(tmp_path: Path, origin: Origin) -> None:
    with pytest.raises(DownloadFailed):
        Downloads(tmp_path / "absent", ANY).fetch(f"{origin.url}/ok/m.mar")


def test_a_silent_server_is_given_up(tmp_path: Path, origin: Origin) -> None:
    with pytest.raises(DownloadFailed):
        Downloads(tmp_path, ANY, Limits(patience=0.05)).fetch(f"{origin.url}/silent/m.mar")
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_taken_from_the_beginning_of_its_download(tmp_path: Path, origin: Origin) -> None:
    downloads = Downloads(tmp_path, ANY)
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(downloads.fetch, f"{origin.url}/slow/m.mar")
        assert origin.asked.wait(60)
        assert not (tmp_path / "m.mar").exists()
        with pytest.raises(InternalError, match=r"^Model file already exists m\.mar$"):
            downloads.fetch(f"{origin.url}/ok/m.mar")
        origin.release.set()
        assert first.result(60).read_bytes() == origin.archive
    assert [path.name for path in tmp_path.iterdir()] == ["m.mar"]
